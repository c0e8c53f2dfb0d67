"""Consolidated metadata: those of a whole hierarchy, collected for one document."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore, WrapperStore


def collect(store: Any) -> Any:
    """What Zarr would write into the root's metadata; nothing is written."""
    kept = _Kept(LocalStore(store) if isinstance(store, Path) else store)
    with warnings.catch_warnings():
        # Zarr warns that other readers may ignore it, which does no harm.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(kept)
    return kept.document["consolidated_metadata"]


class _Kept(WrapperStore[Any]):
    """A store whose root is not written but kept, as a dictionary."""

    document: dict[str, Any]

    async def set(self, key: str, value: Any) -> None:
        assert key == "zarr.json"
        self.document = json.loads(value.to_bytes())
