"""A checkpoint written by the trainer itself, uncoded: the way out when the ring is full.

A valid safetensors file of the plain tensors, in `raw/` of the attempt until it is coded. Its
metadata holds what its journal line will say, with a checksum over both weights and words: the
file can be taken in later, even by the next start, and a torn one is noticed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from ndt_offline.errors import DamagedError, NdtError
from ndt_offline.run import container, durable, journal
from ndt_offline.run.checkpoint import RAW, Written, gather
from ndt_offline.run.identity import content, crc32c, hex8
from ndt_offline.run.layout import Layout, Vectors
from ndt_offline.storage.regular import read_regular

FOLDER = "raw"
# What no second look will change; descriptors, memory or a disk may be there again.
NO_FILE = (errno.ENOENT, errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EFBIG)


def write(
    attempt: Path, step: int, layout: Layout, vectors: Vectors, scalars: Mapping[str, Any]
) -> int:
    """Write the tensors with one call, rename; no fsync: the writer does that. Returns the size."""
    words = journal.line_of({"step": step, "content": content(layout, vectors), **scalars})
    meta = {"codec": RAW, "layout": layout.key, "journal": words.decode().rstrip("\n")}
    head = container.header(((t.name, t.dtype, t.shape) for t in layout.tensors), meta)
    parts: list[Any] = [head, *(vectors[dtype] for dtype in layout.sizes)]
    path = attempt / FOLDER / f"step_{step:012d}.safetensors"
    return _write(path, [memoryview(part).cast("B") for part in parts if len(part)])


def listed(attempt: Path, known: Container[object] = ()) -> list[tuple[int, Path]]:
    """The raw files of an attempt by step, without those of the steps that are known."""
    try:
        names = os.listdir(attempt / FOLDER)  # by name: there may be thousands
    except FileNotFoundError:
        return []
    found = {_step_in(name): name for name in names}
    new = sorted(step for step in found if step is not None and step not in known)
    return [(step, attempt / FOLDER / found[step]) for step in new]


def _step_in(name: str) -> int | None:
    digits = name.removeprefix("step_").removesuffix(".safetensors")
    whole = name == f"step_{digits}.safetensors" and digits.isascii() and digits.isdecimal()
    return int(digits) if whole else None


def read(path: Path, layout_of: Callable[[str], Layout]) -> tuple[Written, dict[str, Any], int]:
    """What the journal is to say of a raw file, its scalars, and the bytes of its tensors.

    Raises DamagedError where the file is not whole, OSError where it could not be read this time.
    """
    try:
        data = read_regular(path)
        contents = container.parse(data)
        words = journal.parse_line(contents.metadata.get("journal", "").encode())
        if words is None or words.get("step") != _step_in(path.name):
            raise DamagedError("its metadata is damaged")
        layout = layout_of(contents.metadata.get("layout", ""))
        found = content(layout, gather(contents, layout))
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise DamagedError(f"is no file: {error.strerror}", path=path) from None
    except NdtError as error:
        raise error.at(path=path) from None
    if found != words.pop("content", None):
        raise DamagedError("the tensors are not those that were recorded", path=path)
    scalars = {key: value for key, value in words.items() if key != "step"}
    done = Written(f"{FOLDER}/{path.name}", len(data), hex8(crc32c(data)), found)
    return done, scalars, layout.nbytes


def _write(path: Path, parts: list[memoryview]) -> int:
    if not hasattr(os, "writev"):
        return durable.write(path, parts, sync=False)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{durable.LITTER}")
    size = sum(len(part) for part in parts)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            written = os.writev(handle, parts)
            while written < size:  # at most 2 GiB go at a time
                written += os.write(handle, _rest(parts, written))
        finally:
            os.close(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def _rest(parts: list[memoryview], written: int) -> memoryview:
    for part in parts:
        if written < len(part):
            return part[written:]
        written -= len(part)
    return memoryview(b"")
