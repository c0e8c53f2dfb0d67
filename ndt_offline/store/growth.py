"""Growth of a store: rows added, superseded or dropped, layers exchanged. The driver alone.

Each change is made in an order that a kill at any moment leaves safe: marks that rows are done
go first, the steps that say which rows there are come last, and the next start goes on.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from ndt_offline.storage.location import is_remote
from ndt_offline.store.arrays import read_arrays
from ndt_offline.store.measures import GROUP, drop_measures, measure_groups
from ndt_offline.store.ownership import write_attributes
from ndt_offline.store.schema import (
    MARKS,
    MEASURES,
    Space,
    create,
    create_space,
    forget_consolidated,
    open_root,
)
from ndt_offline.store.whole_file import DRAFTS

STEPPED = ("records", "signals", "activations", "weights")
LEFT = ".partial"  # suffix of a chunk whose writer died


def make_store(path: Path, spaces: Sequence[Space], block: int, keys: Mapping[str, int]) -> Any:
    """A fresh, empty store in place of what is there (which is ours: the caller has checked)."""
    path = path.resolve()  # behind a link, the folder is what counts
    discard(path)
    root = create(path, spaces, block)
    write_attributes(root, path, {"spaces": as_text(keys)})
    return root


def open_store(path: Path, spaces: Sequence[Space], keys: Mapping[str, int]) -> Any:
    """Open a store for writing; a space whose key is another one starts empty.

    keys: identity of what each space measures. Spaces with the key they had keep their rows.
    """
    sweep(path)
    forget_consolidated(path)
    root = open_root(path)
    had, want = root.attrs.get("spaces", {}), as_text(keys)
    for space in spaces:
        if had.get(space.name) == want[space.name] and space.name in root:
            continue
        known = {**root.attrs.get("spaces", {}), space.name: ""}
        # No setup until the driver says what the store holds now.
        write_attributes(root, path, {"setup": None, "spaces": known})
        _forget_marks(root, space.name)
        create_space(root, space, int(root.attrs["block"]))
        drop_measures(root, space.name, want[space.name])
        write_attributes(root, path, {"spaces": known | {space.name: want[space.name]}})
    return root


def grow(root: Any, steps: np.ndarray, unchanged: int) -> None:
    """Give the store these steps; rows from `unchanged` on are new or superseded."""
    last: list[Any] = []
    for name, array in stepped(root):
        if name == "records/step":
            last.append(array)
            continue
        if name.endswith("/step"):
            array.resize((len(steps),))
            array[:] = steps
        else:
            if array.shape[0] > unchanged and array.attrs.get("spectra"):
                # A metric of spectra that may all come back: of these it will lack rows.
                array.update_attributes({"spectra": ""})
            _truncate(array, unchanged)
            array.resize((len(steps), *array.shape[1:]))
    for array in last:
        array.resize((len(steps),))
        array[:] = steps


def same_rows(root: Any, steps: np.ndarray) -> bool:
    """Whether every array has a row for each of these steps, and every `step` says them.

    What a growth that was cut off left, or a chunk of steps that was lost, is set right later.
    """
    arrays = dict(stepped(root))
    if any(array.shape[0] != len(steps) for array in arrays.values()):
        return False
    said = read_arrays({name: a for name, a in arrays.items() if name.endswith("/step")})
    return all(np.array_equal(values, steps) for values in said.values())


def stepped(root: Any) -> Iterator[tuple[str, Any]]:
    """(name, array) of everything that has a row per step; the marks of `records` first."""
    for group in STEPPED:
        if group not in root:
            continue
        # In which order a folder lists them is its own affair.
        for key, array in sorted(
            root[group].arrays(), key=lambda pair: f"{group}/{pair[0]}" not in MARKS
        ):
            if "step" in (array.metadata.dimension_names or ()):
                yield f"{group}/{key}", array
    for name, group in measure_groups(root):
        for key in ("mark", "problem", "values", "step"):
            if key in group:  # one that was never finished has no key, and is made anew
                yield f"{GROUP}/{name}/{key}", group[key]


def discard(path: Path) -> None:
    """Remove a store: by one rename, so that half of it never looks like a store.

    The name that it goes by meanwhile is one that nobody else has. Object storage has no rename:
    there the root's metadata go first, and what is left without them is removed at the next start.
    """
    if is_remote(path):
        (path / "zarr.json").unlink(missing_ok=True)  # the name that makes it a store goes first
        path.remove_all()  # type: ignore[attr-defined]
    elif path.exists():
        shutil.rmtree(path.rename(path.with_name(f".{path.name}.discarded-{token_hex(8)}")))


def sweep(path: Path) -> int:
    """Remove what writers that died left behind; returns how many files."""
    if is_remote(path):
        return 0  # an object is whole or not there
    left = [*path.rglob(f"*{LEFT}"), *path.glob(DRAFTS)]
    for file in left:
        with contextlib.suppress(OSError):
            file.unlink()
    return len(left)


def _truncate(array: Any, rows: int) -> None:
    """Keep the first rows. Whole chunks are dropped, what stays of a partial one is cleared."""
    if array.shape[0] <= rows:
        return
    chunk = array.chunks[0]
    end = min(array.shape[0], -(-rows // chunk) * chunk)
    array.resize((end, *array.shape[1:]))
    if end > rows:
        array[rows:] = array.fill_value
    array.resize((rows, *array.shape[1:]))


def _forget_marks(root: Any, space: str) -> None:
    root["records/spectra"][:] = 0
    root["records/measured"][:, MEASURES.index(space)] = 0


def as_text(keys: Mapping[str, int]) -> dict[str, Any]:
    """Keys of spaces as the store keeps them."""
    return {name: f"{key:016x}" for name, key in keys.items()}
