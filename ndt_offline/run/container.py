"""The safetensors container: header and buffer, read without trusting either.

Bytes are read, never mapped: a mapped file that is truncated later kills the process (SIGBUS).
The header is checked here before anything looks at it: the format's own reader accepts duplicate
keys, 100,000 dimensions and names such as `../x`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ndt_offline.errors import DamagedError, RefusedError
from ndt_offline.run.layout import ITEMSIZE, MAX_TENSORS, Bytes, check_tensor

MAX_HEADER = 8 * 2**20

# The format's names of dtypes and ours; a dtype it does not know travels as U8.
CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16",
    "uint32": "U32", "int32": "I32", "uint64": "U64", "int64": "I64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float16": "F16", "bfloat16": "BF16",
    "float32": "F32", "float64": "F64", "complex64": "C64",
}  # fmt: skip
_DTYPES = {code: dtype for dtype, code in CODES.items()}


@dataclass(frozen=True)
class Contents:
    """A parsed file: metadata, and {name: (dtype, shape, bytes)} where bytes are views."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, tuple[str, tuple[int, ...], Bytes]]


def header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Length prefix and JSON header for tensors laid out one after another, 8-byte aligned."""
    parts = [_json({"__metadata__": dict(metadata)})] if metadata else []
    parts += [rows] if (rows := _rows(tuple(tensors))) != "{}" else []
    text = ("{" + ",".join(part[1:-1] for part in parts) + "}").encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@lru_cache(maxsize=4)  # a training writes the same table again and again
def _rows(tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> str:
    body: dict[str, Any] = {}
    at = 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * ITEMSIZE[dtype]
        known = dtype in CODES
        body[name] = {
            "dtype": CODES[dtype] if known else "U8",
            "shape": list(shape) if known else [size],
            "data_offsets": [at, at + size],
        }
        at += size
    return _json(body)


def _json(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=True)


def parse(data: bytes | bytearray | memoryview) -> Contents:
    """Split a file into metadata and tensors.

    Raises DamagedError where bytes are missing and RefusedError where the header says something
    that no writer of checkpoints says.
    """
    if len(data) < 8:
        raise DamagedError(f"{len(data)} bytes; a safetensors file has at least 8")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise RefusedError(f"header of {length} bytes; at most {MAX_HEADER} are read")
    if 8 + length > len(data):
        raise DamagedError(f"truncated: header of {length} bytes in a file of {len(data)}")
    body = _load(bytes(data[8 : 8 + length]))
    metadata = body.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(not isinstance(v, str) for v in metadata.values()):
        raise RefusedError("header: __metadata__ is not a table of strings")
    if len(body) > MAX_TENSORS:
        raise RefusedError(f"{len(body)} tensors; at most {MAX_TENSORS} are read")
    buffer = np.frombuffer(data, np.uint8)[8 + length :]
    tensors, end = {}, 0
    for name, entry in sorted(body.items(), key=lambda item: _start(item[1])):
        dtype, shape, start, stop = _entry(name, entry)
        if start != end:
            raise RefusedError(f"tensor {name!r}: bytes overlap or leave a gap at {end}")
        end = stop
        if stop > len(buffer):
            raise DamagedError(f"truncated: tensor {name!r} ends at {stop} of {len(buffer)} bytes")
        tensors[name] = (dtype, shape, buffer[start:stop])
    if end != len(buffer):
        raise DamagedError(f"{len(buffer)} bytes of data where the header declares {end}")
    return Contents(metadata, tensors)


def _load(text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"header is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RefusedError("header is not a table")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise RefusedError("header: a key stands twice")
    return table


def _start(entry: Any) -> tuple[int, int]:
    try:
        start, stop = entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        start = stop = None
    if type(start) is not int or type(stop) is not int:
        raise RefusedError(f"header: not a tensor entry: {str(entry)[:80]}")
    return start, stop


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    start, stop = _start(entry)
    code = entry.get("dtype")
    dtype = _DTYPES.get(code) if isinstance(code, str) else None
    shape = entry.get("shape")
    if dtype is None:
        raise RefusedError(f"tensor {name!r} has dtype {str(code)[:80]!r}, which is not known")
    if not isinstance(shape, list) or any(type(n) is not int for n in shape):
        raise RefusedError(f"tensor {name!r}: shape {str(shape)[:80]} is not a list of integers")
    check_tensor(name, dtype, tuple(shape))
    if stop - start != math.prod(shape) * ITEMSIZE[dtype]:
        raise RefusedError(f"tensor {name!r}: {stop - start} bytes for shape {shape} of {dtype}")
    return dtype, tuple(shape), start, stop
