"""Locks that end with their process, however it ends: one live trainer, one live writer.

POSIX record locks: a forked child does not inherit them, and the system drops them at death.
Within a process they do not exclude, so the process keeps its own list.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no second process is noticed there
    fcntl = None  # type: ignore[assignment]

_held: dict[Path, int] = {}  # path -> the process that holds it


class Lock:
    """An exclusive lock on a file, tried once."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle = path.resolve(), -1

    def take(self) -> bool:
        """False where another process, or another holder in this one, has it."""
        if _held.get(self._path) == os.getpid():
            return False
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            return False
        except OSError:  # a file system without locks: better recorded than refused
            pass
        _held[self._path] = os.getpid()
        return True

    def drop(self) -> None:
        if _held.get(self._path) == os.getpid():
            del _held[self._path]
            os.close(self._handle)
