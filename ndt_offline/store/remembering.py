"""A Zarr store in object storage that asks for the same metadata once.

Zarr reads the metadata of a group or array each time it is named; on a disk that costs nothing, in
a bucket a request. One process changes metadata at a time (the driver), so what an opened root has
read stays true for as long as it lives; so do the answers in `derived/`. Chunks that workers write
are never remembered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import zarr
from zarr.storage import WrapperStore

from ndt_offline.storage.remote import Remote

METADATA = "zarr.json"
LARGEST = 2**20  # bytes that are remembered of one object


class Remembering(WrapperStore[Any]):
    """`zarr.storage.FsspecStore`, its metadata and listings of folders remembered."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._known: dict[str, Any] = {}
        self._lists: dict[str, list[str]] = {}

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if byte_range is not None or not _is_driver(key):
            return await super().get(key, prototype, byte_range)
        if key in self._known:
            return self._known[key]
        value = await super().get(key, prototype)
        if value is None or len(value) <= LARGEST:
            self._known[key] = value
        return value

    async def exists(self, key: str) -> bool:
        if self._known.get(key) is not None:
            return True
        return await super().exists(key)

    async def set(self, key: str, value: Any) -> None:
        await super().set(key, value)
        if key.endswith(METADATA):
            self._lists.clear()
        if _is_driver(key):
            self._known[key] = value

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        self._forget(key)
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        self._forget(prefix)
        await super().delete_dir(prefix)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        if prefix not in self._lists:
            self._lists[prefix] = [name async for name in super().list_dir(prefix)]
        for name in self._lists[prefix]:
            yield name

    def _forget(self, prefix: str) -> None:
        self._lists.clear()
        self._known = {k: v for k, v in self._known.items() if not k.startswith(prefix)}


def _is_driver(key: str) -> bool:
    """Whether only the driver writes it."""
    return key.endswith(METADATA) or key.startswith("derived/")


def remembering(where: Remote) -> Remembering:
    """A store at a URL."""
    options = where.options
    return Remembering(zarr.storage.FsspecStore.from_url(str(where), storage_options=options))
