"""Files of a run: only regular ones are read, only the run's own are deleted.

A pipe or a device under a checkpoint's name would be waited for, or read without end. A journal
is input: what it names is deleted only where the recorder itself would have put it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ndt_offline.storage.ranges import RangeReader
from ndt_offline.storage.remote import Remote

_STEP = r"step_(\d{12,14})"
_SEGMENT = r"segment_(\d{12,14})_(\d{12,14})(?:_small)?(?:_\d+)?"
_NAMES = {
    "checkpoints": re.compile(rf"(?:{_STEP}|{_SEGMENT})\.safetensors", re.ASCII),
    "raw": re.compile(rf"{_STEP}\.safetensors", re.ASCII),
}


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file for reading, and its size; OSError for anything else."""
    if isinstance(path, Remote):
        size = path.status().st_size
        yield cast(BinaryIO, RangeReader(path, size)), size
        return
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except ValueError:  # a zero byte or half a character in the name
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    try:
        size = _size(handle, path)
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file, size
    finally:
        os.close(handle)


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file; OSError for anything else, and for one beyond the memory.

    most: bytes that such a file may have at most.
    """
    try:
        with opened(path) as (file, size):
            if most is not None and size > most:
                raise OSError(errno.EFBIG, f"{size} bytes; at most {most} are read", str(path))
            return file.read()
    except (MemoryError, OverflowError):
        raise OSError(errno.ENOMEM, "larger than the memory", str(path)) from None


def is_own(attempt: Path, path: Path, step: int) -> bool:
    """Whether this is a file that recording or packing made for `step` of this attempt.

    A real file, directly in the attempt's own folder, by no symbolic link, under a name of ours.
    """
    named = _NAMES.get(path.parent.name)
    match = named.fullmatch(path.name) if named else None
    if match is None:
        return False
    digits = [int(digits) for digits in match.groups() if digits]
    home = attempt.parent.parent.resolve() / "attempts" / attempt.name / path.parent.name
    try:
        real = path.parent.resolve(strict=True) == home and stat.S_ISREG(path.lstat().st_mode)
    except (OSError, RuntimeError):
        return False
    return real and digits[0] <= step <= digits[-1]


def _size(handle: int, path: Path) -> int:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found.st_size
