"""Locks that end with their process, however it ends: one live trainer, one live writer.

Locks of an open file description where the system has them (Linux): record locks of POSIX would
end as soon as the process closes the file anywhere, as a copy of the run does. A forked child
shares them, and closes its own end at once, or a worker that outlives its trainer would hold the
lock. Elsewhere record locks; within a process those do not exclude, so it keeps a list.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no second process is noticed there
    fcntl = None  # type: ignore[assignment]

_held: dict[Path, int] = {}  # path -> descriptor of the lock that this process holds
_WHOLE_FILE = (0, 0, 0, 0)  # from where, start, length, process: struct flock, after its type


class Lock:
    """An exclusive lock on a file, tried once."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle = path.resolve(), -1

    def take(self) -> bool:
        """False where another process, or another holder in this one, has it."""
        if self._path in _held:
            return False
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(self._handle)
        except (BlockingIOError, PermissionError):
            os.close(self._handle)
            return False
        except OSError:  # a file system without locks: better recorded than refused
            pass
        _held[self._path] = self._handle
        return True

    def drop(self) -> None:
        if _held.get(self._path) == self._handle:
            os.close(_held.pop(self._path))


def _lock(handle: int) -> None:
    """OSError where it cannot be had: BlockingIOError or PermissionError where another has it."""
    if fcntl is None:
        return
    if hasattr(fcntl, "F_OFD_SETLK") and sys.maxsize > 2**32:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, *_WHOLE_FILE))
    else:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _in_child() -> None:
    while _held:
        os.close(_held.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
