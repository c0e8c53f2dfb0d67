"""The lock of a store: one analysis at a time, known dead when its process is."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.storage.location import is_remote

try:
    import fcntl
except ImportError:  # Windows: the file's existence is the lock
    fcntl = None  # type: ignore[assignment]

# A link is never followed: the file behind it would be emptied.
EXACTLY = getattr(os, "O_NOFOLLOW", 0) | (0 if fcntl else os.O_EXCL)


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold `<store>.lock` for this process; UsageError at once where another one holds it.

    The operating system drops the lock with the process, however it dies: nothing is left to
    clean by hand. Between machines it works where the file system has working locks (NFS 4,
    Lustre with `flock`). Object storage has none: there the last one to start takes over, by the
    token in the root's attributes (`store.ownership`), and the one before it stops at its next
    block or at the next thing that it says of the store.
    """
    if is_remote(store):
        yield
        return
    path = store.with_name(f"{store.name}.lock")
    handle = _take(path)
    try:
        yield
    finally:
        # Removed while it is still held: whoever opened the old file sees that it is gone.
        path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | EXACTLY, 0o666)
            if _hold(handle, path):
                break
            os.close(handle)
    except FileExistsError:
        raise _refusal(path) from None
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            remedy = f"look where it points to, then remove {path}"
            raise UsageError("is a link: no lock of ours", path=path, remedy=remedy) from None
        what = f"the store cannot be locked: {error.strerror}"
        raise NdtError(what, path=path, remedy="give --out a place that can be written") from None
    os.truncate(handle, 0)
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    os.write(handle, json.dumps(about).encode())
    return handle


def _hold(handle: int, path: Path) -> bool:
    """Lock the open file; False where it was removed meanwhile by the one who held it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise _refusal(path) from None
    except OSError:
        os.close(handle)
        raise
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _refusal(path: Path) -> UsageError:
    about: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        about = json.loads(path.read_bytes())
    who = f"process {about.get('pid', '?')} on {about.get('host', '?')}"
    return UsageError(
        f"another analysis is writing this store: {who}",
        path=path.with_name(path.name.removesuffix(".lock")),
        remedy="wait for it, or give another --out" if fcntl else f"if it is dead, remove {path}",
    )
