"""An object as a file that is read from."""

from __future__ import annotations

from ndt_offline.storage.remote import Remote


class RangeReader:
    """An object read in parts: each read is one request for its bytes."""

    def __init__(self, path: Remote, size: int) -> None:
        self._path, self._size, self._at = path, size, 0

    def seek(self, at: int) -> int:
        self._at = at
        return at

    def read(self, count: int = -1) -> bytes:
        stop = self._size if count < 0 else min(self._at + count, self._size)
        if stop <= self._at:
            return b""
        whole = self._at == 0 and stop == self._size
        data = self._path.read_bytes() if whole else self._path.read_range(self._at, stop)
        self._at += len(data)
        return data
