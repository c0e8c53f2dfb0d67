"""Measures in a store: one group each, `measures/<name>`, that nothing else is mixed with.

    measures/<name>/  step, layer, quantity; values [step, layer, quantity], NaN where there is
                      none; mark [step], that a row is done (0 = not done); problem [step]

A measure that is added makes a group of its own and leaves every other file as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ndt_offline.store import schema
from ndt_offline.store.arrays import WIDE, New, put_arrays

GROUP = "measures"


def create_measure(
    root: Any, name: str, layers: Sequence[str], quantities: Mapping[str, str], **about: Any
) -> None:
    """Make the empty group of a measure, in place of the one that may be there.

    quantities: {name: unit}. It gets the rows that the store has; `about` are its attributes.
    """
    outer = root.require_group(GROUP)
    _disown(outer, name)
    # Overwrite: what a kill in a removal left of it goes as well.
    group, block = outer.create_group(name, overwrite=True), int(root.attrs["block"])
    steps = np.asarray(root["records/step"][:])
    rows, count, width = len(steps), len(layers), len(quantities)
    per_chunk = max(1, min(count, schema.MAX_CHUNK // max(1, 8 * block * width)))
    arrays = {
        "values": New(
            ("step", "layer", "quantity"), (rows, count, width), (block, per_chunk, width),
            "float64",
            about={
                "units": list(quantities.values()),
                "long_name": f"{name}: NaN where it could not be computed",
            },
        ),
        "layer": New.of(("layer",), np.array(layers, dtype=object)),
        "quantity": New.of(("quantity",), np.array(list(quantities), dtype=object)),
        "step": New(("step",), (rows,), (WIDE,), "int64", steps, {"units": "updates"}),
    }  # fmt: skip
    for key, dtype, said in (
        ("mark", "uint64", "mark of what was measured"),
        ("problem", str, "why a row has no value, or lacks some"),
    ):
        arrays[key] = New(("step",), (rows,), (block,), dtype, about={"long_name": said})
    put_arrays(group, arrays)
    # Last: a group without its key was never finished.
    group.update_attributes(about)


def measure_groups(root: Any) -> Iterator[tuple[str, Any]]:
    """(name, group) of every measure that a store holds."""
    if GROUP in root:
        yield from sorted(root[GROUP].groups(), key=lambda pair: pair[0])


def key_of_measure(root: Any, name: str) -> str | None:
    """The identity of what is stored under that name; None where nothing is."""
    if GROUP not in root or name not in root[GROUP]:
        return None
    return root[GROUP][name].attrs.get("key") or None


def drop_measures(root: Any, space: str, key: str) -> None:
    """Remove the measures that were computed of a space as it no longer is."""
    stale = [n for n, g in measure_groups(root) if g.attrs.get("depends", {}).get(space) != key]
    for name in stale:
        if space in root[GROUP][name].attrs.get("depends", {}):
            _disown(root[GROUP], name)
            del root[GROUP][name]


def _disown(outer: Any, name: str) -> None:
    """Before its removal: half of it must not be taken for what its key says."""
    if name in outer:
        outer[name].update_attributes({"key": ""})
