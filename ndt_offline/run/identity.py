"""What a checkpoint, a graph, a probe *is*, independent of the file it lies in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import google_crc32c
import numpy as np

from ndt_offline.run.layout import Bytes, Layout, Vectors


def crc32c(*parts: bytes | bytearray | memoryview | Bytes) -> int:
    """CRC-32C (Castagnoli) of the parts one after another, without copying them."""
    crc = 0
    for part in parts:
        # The library takes bytes or an array, but no other buffer.
        crc = google_crc32c.extend(crc, np.frombuffer(part, np.uint8)) if len(part) else crc
    return crc


def hex8(crc: int) -> str:
    return f"{crc:08x}"


def content(layout: Layout, vectors: Vectors) -> str:
    """CRC-32C of the decoded tensors: the table (name, dtype, shape), then the bytes.

    Tensors come sorted by dtype and name. Aliases are not content: a tied tensor is stored once.
    Eight hex digits. It does not depend on how the file was coded: packing changes no result.
    """
    return hex8(crc32c(layout.rows, *(vectors[dtype] for dtype in sorted(layout.sizes))))


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: object) -> int:
    """A non-zero 64-bit hash of plain values: 0 is kept for `not done`."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
