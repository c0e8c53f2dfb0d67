"""The store: a Zarr v3 hierarchy that xarray opens as it is.

    records/      step; spectra, the mark of a row that is done (0 = not done); measured, the same
                  per space; outcome, problem
    signals/      step; probe [step, quantity]; journal scalars [step]
    activations/  step, layer, component; singular_values, status; rows, columns, kind; metrics
    weights/      the same
    measures/     one group per measure beside the spectra, see `measures`
    derived/      one group per question asked of the spectra

Only the driver changes structure (here and in `growth`); tasks write whole chunks along `step`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from ndt_offline.storage.remote import Remote
from ndt_offline.store.consolidated import collect
from ndt_offline.store.ownership import changed_root
from ndt_offline.store.remembering import remembering

SCHEMA_VERSION = 1
MARKER = "ndt_offline"  # attribute of the root that makes a store ours: the schema's version
CONSOLIDATED = "consolidated_metadata"
MAX_CHUNK = 16 * 2**20
HEAVY = 32 * 2**20  # bytes of a checkpoint that takes seconds to replay
WIDE = 8192  # chunk along step of what the driver writes: coordinates, journal scalars, metrics

STATUS = {"not_computed": 0, "ok": 1, "not_finite": 2, "absent": 3}
OUTCOME = {"not_done": 0, "ok": 1, "damaged": 2, "refused": 3, "failed": 4}
MEASURES = ("activations", "weights")  # what a row can be done for on its own
QUANTITIES = ("loss", "accuracy", "loss_val", "accuracy_val")


@dataclass(frozen=True)
class LayerInfo:
    """A measured layer: its matrix is [rows, columns]."""

    name: str
    kind: str
    rows: int
    columns: int

    @property
    def components(self) -> int:
        return min(self.rows, self.columns)


@dataclass(frozen=True)
class Space:
    """The measured layers of `activations` or of `weights`."""

    name: str
    layers: tuple[LayerInfo, ...]

    @property
    def width(self) -> int:
        return max((layer.components for layer in self.layers), default=0)


def block_length(rows: int, size: int = 0) -> int:
    """Rows per task and chunk, fixed when the store is made; size: bytes of a checkpoint's file.

    Many rows make few files in blocks of 512; heavy checkpoints make many tasks in blocks of 8.
    """
    if size >= HEAVY:
        return 8
    return 64 if rows <= 20_000 else 512


def create(path: Path, spaces: Sequence[Space], block: int) -> zarr.Group:
    """Make an empty store for these layers, with chunks of `block` rows; it has no rows yet.

    Its attribute `setup` is missing until the driver sets it: what has none was never finished.
    """
    about = {MARKER: SCHEMA_VERSION, "block": block}
    root = zarr.create_group(zarr_store(path), attributes=about)
    records = root.create_group("records")
    _stepped(records, "spectra", "uint64", block, long_name="mark of what was replayed")
    make_array(
        records,
        "measured",
        (0, len(MEASURES)),
        (block, len(MEASURES)),
        "uint64",
        ("step", "measure"),
        long_name="mark of what was measured, per space",
    )
    _coordinate(records, "measure", np.array(MEASURES, dtype=object), str)
    _stepped(records, "outcome", "uint8", block, **_flags(OUTCOME))
    _stepped(records, "problem", str, block, long_name="why a checkpoint could not be used")
    signals = root.create_group("signals")
    _coordinate(signals, "quantity", np.array(QUANTITIES, dtype=object), str)
    make_array(
        signals,
        "probe",
        (0, len(QUANTITIES)),
        (block, len(QUANTITIES)),
        "float64",
        ("step", "quantity"),
        long_name="loss and accuracy on the probe",
    )
    for space in spaces:
        create_space(root, space, block)
    root.create_group("derived")
    for name in ("records", "signals"):
        _step_coordinate(root[name])
    return root


def open_root(path: Path) -> Any:
    """The root group as it is on disk, never as consolidated metadata remember it.

    Typed as anything: to a type checker every item of a `zarr.Group` may be an array or a group.
    """
    return zarr.open_group(zarr_store(path), mode="r+", use_consolidated=False)


def zarr_store(path: Path) -> Any:
    """What Zarr opens: the path, or a store in object storage."""
    return remembering(path) if isinstance(path, Remote) else path


def put_series(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: Any, **about: Any
) -> None:
    """Write a whole array that the driver owns, made if it is missing."""
    values = np.asarray(values)
    array: Any = group.get(name)
    if array is None or array.shape != values.shape:
        if array is not None:
            del group[name]
        chunks = tuple(
            min(n, WIDE) if d == "step" else n for n, d in zip(values.shape, dims, strict=True)
        )
        dtype = str if values.dtype.kind in "OU" else values.dtype
        array = make_array(group, name, values.shape, chunks, dtype, dims)
    if values.size:
        array[...] = values
    # After the values: an attribute that says what they are must not stand beside unwritten ones.
    if about:
        array.attrs.update(about)


def forget_consolidated(path: Path) -> None:
    """Drop consolidated metadata before the structure changes: stale ones hide rows."""
    if CONSOLIDATED in json.loads((path / "zarr.json").read_bytes()):
        with changed_root(path) as document:
            document.pop(CONSOLIDATED, None)


def consolidate(path: Path, token: str | None = None) -> None:
    """The very last act: one read then opens the whole hierarchy.

    token: whose the store must be when they are written; None asks nothing.
    """
    metadata = collect(zarr_store(path))
    # Collecting takes long in a bucket: the root is written as it is by now.
    with changed_root(path, token) as document:
        document[CONSOLIDATED] = metadata


def create_space(root: zarr.Group, space: Space, block: int) -> None:
    """Make the empty group of a space, in place of the one that may be there."""
    group = root.create_group(space.name, overwrite=True)  # what a kill left of it goes as well
    count, width = len(space.layers), space.width
    per_chunk = max(1, min(count, MAX_CHUNK // max(1, 8 * block * width)))
    make_array(
        group,
        "singular_values",
        (0, count, width),
        (block, per_chunk, max(width, 1)),
        "float64",
        ("step", "layer", "component"),
        long_name="singular values, descending; NaN beyond a layer's smaller side",
    )
    make_array(
        group,
        "status",
        (0, count),
        (block, max(count, 1)),
        "uint8",
        ("step", "layer"),
        **_flags(STATUS),
    )
    _coordinate(group, "layer", np.array([x.name for x in space.layers], dtype=object), str)
    _coordinate(group, "component", np.arange(width), "int64")
    for key, values, about in (
        ("rows", [x.rows for x in space.layers], "rows of the layer's matrix"),
        ("columns", [x.columns for x in space.layers], "columns of the layer's matrix"),
    ):
        put_series(group, key, ("layer",), np.array(values, np.int64), long_name=about)
    kinds = np.array([x.kind for x in space.layers], dtype=object)
    put_series(group, "kind", ("layer",), kinds, long_name="operation that makes the layer")
    _step_coordinate(group)


def _flags(table: Mapping[str, int]) -> dict[str, Any]:
    return {"flag_values": list(table.values()), "flag_meanings": " ".join(table)}


def _step_coordinate(group: zarr.Group) -> None:
    _stepped(group, "step", "int64", WIDE, long_name="training step", units="updates")


def _stepped(group: Any, name: str, dtype: Any, chunk: int, **about: Any) -> None:
    make_array(group, name, (0,), (chunk,), dtype, ("step",), **about)


def _coordinate(group: zarr.Group, name: str, values: np.ndarray, dtype: Any) -> None:
    make_array(group, name, values.shape, (max(len(values), 1),), dtype, (name,))
    if len(values):
        group[name][:] = values


def make_array(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    **about: Any,
) -> zarr.Array:
    """Make an empty array: compressed, with a checksum, NaN where it is floating."""
    floating = dtype is not str and np.dtype(dtype).kind == "f"
    fill: Any = math.nan if floating else ("" if dtype is str else 0)
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(n, 1) for n in chunks),
        dtype=dtype,
        compressors=[ZstdCodec(level=1, checksum=True)],
        fill_value=fill,
        dimension_names=dims,
        attributes=about,
    )
