"""Only regular files are read: a pipe or a device would be waited for, or read without end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ndt_offline.storage.ranges import RangeReader
from ndt_offline.storage.remote import Remote


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


def _size(handle: int, path: Path) -> int:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found.st_size
