"""Remarks on a finished replay: what could not be used, what was left out, what is odd."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ndt_offline.execute.signals import renamed
from ndt_offline.run.attempt import Problem
from ndt_offline.run.layout import clashes
from ndt_offline.run.reader import Run, recorded_layouts
from ndt_offline.run.rounding import rounding
from ndt_offline.store.results import Results
from ndt_offline.store.schema import STATUS

FORWARD = "forward pass failed"
SAID = 3  # reasons for skipping layers that are told


def problems_of(run: Run, results: Results) -> list[Problem]:
    """What the replay could not use: each checkpoint, and parts of the run."""
    setup = results.attrs["setup"]
    found = [Problem(**problem) for problem in setup["problems"]]
    for step, why in results.unusable():
        # Both the path and the reason may hold a colon: only the path that is known is taken off.
        path = str(run.entry(step).path)
        what, _, remedy = why.removeprefix(f"{path}: ").partition("\n  try: ")
        place = path if why.startswith(f"{path}: ") else str(run.path)
        found.append(Problem(what, place, step, remedy or _remedy(run, what)))
    return found


def _remedy(run: Run, what: str) -> str:
    """For a reason that has none: a file may be damaged, a forward pass is of another model."""
    if not what.startswith(FORWARD):
        return f"ndt-offline verify {run.path}"
    if "same dtype" in what:
        return f"ndt-analyze {run.path} --upcast"
    return "--model package.module:factory of the model that wrote the checkpoint"


def notes_of(run: Run, results: Results) -> Iterator[str]:
    """What is worth knowing of what was measured, and what was not, as sentences."""
    setup = results.attrs["setup"]
    yield from setup["notes"]
    yield from renamed(run)
    yield from _reshaped(run, results)
    yield from rounding(run)
    if run.hidden:
        yield f"{run.hidden} checkpoints of earlier attempts are hidden by a later one"
    reasons: dict[str, list[str]] = {}
    for name, reason in setup["skipped"]:
        reasons.setdefault(reason, []).append(name)
    for reason, names in list(reasons.items())[:SAID]:
        yield f"{len(names)} layers skipped ({', '.join(names[:5])}): {reason}"
    if len(reasons) > SAID:
        more = sum(map(len, list(reasons.values())[SAID:]))
        yield f"{more} more layers skipped: ndt-offline inspect {run.path}"
    for space in results.spaces:
        for layer, count in zip(space.layers, results.broken(space.name).sum(0), strict=True):
            if count:
                yield f"{space.name} of {layer.name}: NaN or infinite at {count} steps"


def _reshaped(run: Run, results: Results) -> Iterator[str]:
    """Layers of weights that change their shape in the middle of the run."""
    odd = {} if run.foreign else clashes(recorded_layouts(run))
    status, layers = results.root["weights/status"][:], results.space("weights").layers
    moved: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        rows = np.flatnonzero(status[:, index])
        absent = status[rows, index] == STATUS["absent"]
        if layer.name in odd and absent.any() and not absent.all():
            turn = int(results.steps[rows[1:][np.diff(absent)][0]])
            moved.setdefault(turn, []).append(index)
    for step, found in moved.items():
        layer = layers[found[0]]
        shapes = ", ".join(str(list(shape)) for shape in odd[layer.name])
        yield (
            f"{len(found)} layers of weights change their shape from step {step} on ({layer.name} "
            f"has been {shapes}): each is measured in one, {layer.name} as "
            f"{layer.rows} x {layer.columns}"
        )
