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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ndt_offline.storage.remote import Remote
from ndt_offline.store.arrays import WIDE, New, put_arrays
from ndt_offline.store.consolidated import collect
from ndt_offline.store.ownership import changed_root
from ndt_offline.store.remembering import remembering

SCHEMA_VERSION = 1
MARKER = "ndt_offline"  # attribute of the root that makes a store ours: the schema's version
CONSOLIDATED = "consolidated_metadata"
MAX_CHUNK = 16 * 2**20
HEAVY = 32 * 2**20  # bytes of a checkpoint that takes seconds to replay

STATUS = {"not_computed": 0, "ok": 1, "not_finite": 2, "absent": 3}
OUTCOME = {"not_done": 0, "ok": 1, "damaged": 2, "refused": 3, "failed": 4}
MEASURES = ("activations", "weights")  # what a row can be done for on its own
MARKS = ("records/measured", "records/spectra")  # in the order they are written: last of all
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
    measures = len(MEASURES)
    arrays = {
        "records/spectra": _rows("uint64", block, long_name="mark of what was replayed"),
        "records/measured": New(
            ("step", "measure"), (0, measures), (block, measures), "uint64",
            about={"long_name": "mark of what was measured, per space"},
        ),
        "records/measure": New.of(("measure",), _names(MEASURES)),
        "records/outcome": _rows("uint8", block, **_flags(OUTCOME)),
        "records/problem": _rows(str, block, long_name="why a checkpoint could not be used"),
        "signals/quantity": New.of(("quantity",), _names(QUANTITIES)),
        "signals/probe": New(
            ("step", "quantity"), (0, len(QUANTITIES)), (block, len(QUANTITIES)), "float64",
            about={"long_name": "loss and accuracy on the probe"},
        ),
    }  # fmt: skip
    arrays |= {f"{name}/step": _step() for name in ("records", "signals")}
    put_arrays(root, arrays, {"records": {}, "signals": {}, "derived": {}})
    for space in spaces:
        create_space(root, space, block)
    return root


def open_root(path: Path) -> Any:
    """The root group as it is on disk, never as consolidated metadata remember it.

    Typed as anything: to a type checker every item of a `zarr.Group` may be an array or a group.
    """
    return zarr.open_group(zarr_store(path), mode="r+", use_consolidated=False)


def zarr_store(path: Path) -> Any:
    """What Zarr opens: the path, or a store in object storage."""
    return remembering(path) if isinstance(path, Remote) else path


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
    sides = {
        "rows": ([x.rows for x in space.layers], "rows of the layer's matrix"),
        "columns": ([x.columns for x in space.layers], "columns of the layer's matrix"),
    }
    arrays = {
        "singular_values": New(
            ("step", "layer", "component"), (0, count, width), (block, per_chunk, width), "float64",
            about={"long_name": "singular values, descending; NaN beyond a layer's smaller side"},
        ),
        "status": New(
            ("step", "layer"), (0, count), (block, count), "uint8", about=_flags(STATUS)
        ),
        "layer": New.of(("layer",), _names([x.name for x in space.layers])),
        "component": New.of(("component",), np.arange(width)),
        "kind": New.of(
            ("layer",), _names([x.kind for x in space.layers]),
            long_name="operation that makes the layer",
        ),
        "step": _step(),
    }  # fmt: skip
    for name, (values, about) in sides.items():
        arrays[name] = New.of(("layer",), np.array(values, np.int64), long_name=about)
    put_arrays(group, arrays)


def _names(names: Sequence[str]) -> np.ndarray:
    return np.array(names, dtype=object)


def _flags(table: Mapping[str, int]) -> dict[str, Any]:
    return {"flag_values": list(table.values()), "flag_meanings": " ".join(table)}


def _rows(dtype: Any, chunk: int, **about: Any) -> New:
    return New(("step",), (0,), (chunk,), dtype, about=about)


def _step() -> New:
    return _rows("int64", WIDE, long_name="training step", units="updates")
