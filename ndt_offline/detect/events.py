"""Events: transitions of several series at one step, tested over all series of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.evidence import FALL, RATE
from ndt_offline.detect.peaks import Peaks, Table
from ndt_offline.detect.transition import Array, Steps
from ndt_offline.detect.trust import strength
from ndt_offline.errors import UsageError

REACH = 10  # points on either side of an event: a window of 21
WINDOW = 2 * REACH + 1


@dataclass(frozen=True)
class Event:
    """Transitions of one or more series within 10 points of one another.

    p       chance that noise alone gives, anywhere in the run, an event this strong
    series, T, at   which series, with what T, at which training step; strongest first
    marks   names of what else happened there (an epoch's end, a change of the learning rate)
    """

    index: int
    step: int | float
    p: float
    series: tuple[int, ...]
    T: tuple[float, ...]
    at: tuple[int | float, ...]
    marks: tuple[str, ...] = ()


def find_events(peaks: Peaks, steps: Any, level: float = 0.1) -> list[Event]:
    """Events of all series of a run, in order of step.

    A series' p in a window of 21 points is (21/1000) exp(9.30 - 2.38 |T|) at its strongest peak;
    a series without a peak says nothing. The p of all series are combined by Cauchy's rule (Liu
    and Xie 2020), which holds for dependent series, and multiplied by the number of windows,
    n/21. The strongest window is taken, its peaks are set aside, and so on while p <= level.
    That p is true where the noise is like the Gaussian nulls; `surprise.events_beside_noise`
    asks the series' matched noise as well.

    Needs the peaks of `steps`, of all series that were tested, not of a choice of them. With 50
    series a step in one of them alone needs |T| of about 6.7.
    """
    if peaks.detector != "steps":
        raise UsageError("events are tested on the peaks of detector 'steps'")
    at = np.asarray(steps)
    table = _columns(peaks)
    many = max(1, len(peaks.series["status"]))
    found: list[Event] = []
    while len(table["series"]):
        total = _combined(table, len(at)) / many
        centre = int(total.argmax())
        # arctan(1 / t) / pi is 0.5 - arctan(t) / pi without the loss of digits.
        p = np.arctan2(1.0, total[centre]) / np.pi * max(1.0, len(at) / WINDOW)
        if total[centre] <= 0 or p > level:
            break
        inside = np.abs(table["index"] - centre) <= REACH
        found.append(_event(table, inside, p, at))
        table = {name: column[~inside] for name, column in table.items()}
    return sorted(found, key=lambda event: event.index)


def _columns(peaks: Peaks) -> Table:
    """Series, index, T and strength of every peak, ordered by series."""
    found = peaks.found
    order = np.argsort(found["series"], kind="stable")
    table = {"series": found["series"], "index": found["index"], "T": found["T"]}
    return {name: c[order] for name, c in (table | {"strength": strength(found)}).items()}


def _combined(table: Table, n: int) -> Array:
    """Sum over series of the Cauchy value of their window p, at every point. [n]."""
    p = np.minimum(WINDOW / 1000 * np.exp(RATE - FALL * table["strength"]), 0.5)
    values = np.tan((0.5 - p) * np.pi)
    total, own = np.zeros(n), np.zeros(n)
    starts = np.flatnonzero(np.r_[True, np.diff(table["series"]) != 0])
    for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(values)], strict=True):
        for i, value in zip(table["index"][a:b].tolist(), values[a:b].tolist(), strict=True):
            window = slice(max(0, i - REACH), i + REACH + 1)
            np.maximum(own[window], value, out=own[window])
        for i in table["index"][a:b].tolist():
            window = slice(max(0, i - REACH), i + REACH + 1)
            total[window] += own[window]
            own[window] = 0.0
    return total


def _event(table: Table, inside: NDArray[np.bool_], p: float, at: Steps) -> Event:
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(-table["strength"][rows], kind="stable")]
    index = int(table["index"][rows[0]])
    return Event(
        index=index,
        step=at[index].item(),
        p=float(p),
        series=tuple(table["series"][rows].tolist()),
        T=tuple(table["T"][rows].tolist()),
        at=tuple(at[table["index"][rows]].tolist()),
    )


def mark_events(events: list[Event], steps: Any, marks: Mapping[str, Any]) -> list[Event]:
    """Events with the names of the marks that fall on them.

    `marks`: name to training steps, such as {"epoch": [938, 1876], "lr": [500]}. A mark falls on
    an event if it lies between the first and the last recorded step within 10 points of it.
    """
    at = np.asarray(steps)
    out = []
    for event in events:
        first = at[max(0, event.index - REACH)]
        last = at[min(len(at) - 1, event.index + REACH)]
        names = tuple(
            name
            for name, where in marks.items()
            if np.any((np.asarray(where) >= first) & (np.asarray(where) <= last))
        )
        out.append(replace(event, marks=names))
    return out
