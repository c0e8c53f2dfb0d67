"""The store's arrays: compressed, with a checksum, NaN where they are floating and nothing is.

Zarr makes, fills and reads an array in several steps, each of which is waited for. Here all arrays
of a group take each step together: an answer is some 150 arrays, and in object storage every step
of each is a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.group import GroupMetadata
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync

WIDE = 8192  # chunk along step of what the driver writes: coordinates, journal scalars, metrics


@dataclass(frozen=True)
class New:
    """An array to be made; without values it is empty. dtype: numpy's, or str."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: Any
    values: np.ndarray | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, dims: tuple[str, ...], values: Any, **about: Any) -> New:
        """One with these values, in one chunk but for long ones along `step`."""
        values = np.asarray(values)
        sides = zip(values.shape, dims, strict=True)
        chunks = tuple(min(n, WIDE) if dim == "step" else n for n, dim in sides)
        kind = str if values.dtype.kind in "OU" else values.dtype
        return cls(dims, values.shape, chunks, kind, values, about)

    @property
    def metadata(self) -> ArrayV3Metadata:
        """What `zarr.json` says of it."""
        fill: Any
        code: dict[str, Any]
        if self.dtype is str:
            kind, fill, code = "string", "", {"name": "vlen-utf8"}
        else:
            known = np.dtype(self.dtype)
            kind, fill = known.name, "NaN" if known.kind == "f" else known.type(0).item()
            code = {"name": "bytes", "configuration": {"endian": "little"}}
        sides = {"chunk_shape": [max(n, 1) for n in self.chunks]}
        return ArrayV3Metadata.from_dict(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": self.shape,
                "data_type": kind,
                "chunk_grid": {"name": "regular", "configuration": sides},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": fill,
                "codecs": [code, ZstdCodec(level=1, checksum=True).to_dict()],
                "dimension_names": self.dims or None,
                "attributes": dict(self.about),
            }
        )


def put_arrays(
    group: Any, arrays: Mapping[str, New], groups: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Make and fill arrays {path: array} and `groups` {path: attributes}; none is there yet."""
    nodes: dict[str, Any] = {path: array.metadata for path, array in arrays.items()}
    for path, attributes in (groups or {}).items():
        nodes[path] = GroupMetadata(attributes=dict(attributes))
    made = dict(group.create_hierarchy(nodes))
    filled = [path for path, new in arrays.items() if new.values is not None and new.values.size]
    _together([made[path].async_array.setitem(..., arrays[path].values) for path in filled])


def put_series(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: Any, **about: Any
) -> None:
    """Write a whole array that the driver owns, made if it is missing."""
    new = New.of(dims, values)
    array: Any = group.get(name)
    if array is not None and array.shape != new.shape:
        del group[name]
        array = None
    if array is None:
        put_arrays(group, {name: new})
        array = group[name]
    elif array.size:
        array[...] = new.values
    # After the values: an attribute that says what they are must not stand beside unwritten ones.
    if about:
        array.update_attributes(about)


def read_arrays(arrays: Mapping[str, zarr.Array]) -> dict[str, np.ndarray]:
    """All of their values."""
    values = _together([array.async_array.getitem(...) for array in arrays.values()])
    return {name: np.asarray(value) for name, value in zip(arrays, values, strict=True)}


def _together(tasks: list[Awaitable[Any]]) -> list[Any]:
    """What they return; where some fail, one of their errors, when all have come to an end."""

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = sync(all_of_them())
    for value in found:
        if isinstance(value, BaseException):
            raise value
    return found
