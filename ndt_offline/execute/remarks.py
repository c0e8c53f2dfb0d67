"""Remarks on a finished replay: what could not be used, what was left out, what is odd."""

from __future__ import annotations

from collections.abc import Iterator

from ndt_offline.run.attempt import Problem
from ndt_offline.run.reader import Run
from ndt_offline.run.rounding import rounding
from ndt_offline.store.results import Results

SAID = 3  # reasons for skipping layers that are told


def problems_of(run: Run, results: Results) -> list[Problem]:
    """What the replay could not use: each checkpoint, and parts of the run."""
    setup = results.attrs["setup"]
    remedy = f"ndt-offline verify {run.path}"
    found = [Problem(**problem) for problem in setup["problems"]]
    for step, why in results.unusable():
        # Both the path and the reason may hold a colon: only the path that is known is taken off.
        path = str(run.entry(step).path)
        what = why.removeprefix(f"{path}: ")
        found.append(Problem(what, path if what != why else str(run.path), step, remedy))
    return found


def notes_of(run: Run, results: Results) -> Iterator[str]:
    """What is worth knowing of what was measured, and what was not, as sentences."""
    setup = results.attrs["setup"]
    yield from setup["notes"]
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
