"""Derived tables: columns along one dimension, in groups whose name says what they answer.

A stage's group is named `<stage>-<key>` where the key is a hash of its parameters and of
everything the spectra say. It is made once, found again by its name, and complete only when its
attribute `complete` is set. It also remembers how many files it has: a chunk that was lost would
read as its fill value, without an error.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ndt_offline.errors import DamagedError
from ndt_offline.store.arrays import New, put_arrays, read_arrays

KEPT = 20  # groups of one stage; older ones are dropped
Columns = Mapping[str, Any]
Tables = Mapping[str, tuple[tuple[str, ...], Columns]]
Make = Callable[[], tuple[Tables, Mapping[str, Any]]]  # tables and attributes of a stage


def key_of(*parts: object) -> str:
    """Sixteen hex digits that change when any part does."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def stage_of(derived: zarr.Group, stage: str, key: str, make: Make) -> zarr.Group:
    """The group of this stage and key: as it stands, or made now."""
    found = find_stage(derived, stage, key)
    return found if found is not None else put_stage(derived, stage, key, *make())


def find_stage(derived: zarr.Group, stage: str, key: str) -> zarr.Group | None:
    """The finished group of this stage and key, or None: also where files of it were lost."""
    group = derived.get(f"{stage}-{key}")
    if group is None or not group.attrs.get("complete"):
        return None
    return group if group.attrs.get("files") in (None, _files(group)) else None


def put_stage(
    derived: zarr.Group,
    stage: str,
    key: str,
    tables: Tables,
    attrs: Mapping[str, Any],
) -> zarr.Group:
    """Write {table: (dimensions, columns)} as one group; a column may use fewer axes."""
    name = f"{stage}-{key}"
    group = derived.create_group(name, overwrite=True)  # what a kill left of it goes as well
    arrays = {
        f"{table}/{column}": New.of(dims[: np.ndim(values)], _storable(values))
        for table, (dims, columns) in tables.items()
        for column, values in columns.items()
    }
    groups = {table: {"columns": list(columns)} for table, (_, columns) in tables.items()}
    put_arrays(group, arrays, groups)
    done = {"time": time.time(), "files": _files(group), "complete": True}
    group.update_attributes({**json_of(attrs), **done})  # in one piece
    _forget_old(derived, stage)
    return group


def read_table(group: zarr.Group, table: str) -> dict[str, np.ndarray]:
    """The columns of a table, whole. Raises DamagedError where one of them was lost."""
    inner = group.get(table)
    known = {} if inner is None else dict(inner.arrays())
    columns = [] if inner is None else inner.attrs.get("columns", sorted(known))
    lost = {table} if inner is None else set(columns) - known.keys()
    if lost:
        raise DamagedError(
            f"of a derived table {', '.join(sorted(lost))} is missing",
            path=f"{group.store_path}/{table}",
            remedy="ndt-analyze on the run again: what is missing is derived again, not replayed",
        )
    return read_arrays({name: known[name] for name in columns})


def json_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as plain JSON; numbers that JSON lacks become strings."""
    text = json.dumps(dict(attrs), default=_plain)
    return json.loads(text, parse_constant=lambda word: {"NaN": "nan"}.get(word, word))


def _files(group: zarr.Group) -> int | None:
    """How many files the tables have, without those that Zarr is still writing; None: not here."""
    root = getattr(group.store_path.store, "root", None)
    if not isinstance(root, Path):
        return None  # object storage, where every look is a request
    tables = (path for path in (root / group.path).iterdir() if path.is_dir())
    return sum(p.is_file() and ".partial" not in p.name for t in tables for p in t.rglob("*"))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _storable(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind == "U" else array


def _forget_old(derived: zarr.Group, stage: str) -> None:
    groups = [(group.attrs.get("time", 0.0), name) for name, group in derived.groups()]
    mine = sorted(pair for pair in groups if pair[1].startswith(f"{stage}-"))
    for _, name in mine[:-KEPT]:
        derived[name].update_attributes({"complete": False})  # half of it is no answer
        del derived[name]
