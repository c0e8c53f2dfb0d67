"""Events beside those of matched noise: whose p is believed, and how far down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.events import Event, find_events
from ndt_offline.detect.peaks import Peaks, Table
from ndt_offline.detect.transition import Points
from ndt_offline.detect.trust import trusted


def events_beside_noise(
    peaks: Peaks, steps: Any, able: NDArray[np.bool_], level: float = 0.1
) -> tuple[list[Event], Points]:
    """Events of the trusted series of a run, and the numbers of those series.

    `able` [series] says which series may make an event at all. Each draw of matched noise, of all
    series together, is taken for a run of noise: whether a series is trusted is asked of the
    other draws, and the smallest p of the draw is noted. The p of an event is at least the share
    of draws, itself among them, that go as far: (1 + draws with a p as small) / (1 + draws).
    Ten draws let no p be below .09, and with fewer than nine nothing is below .1; as the
    selection of the series is repeated in each draw, no event owes its p to it.
    """
    numbers = np.flatnonzero(able & trusted(peaks))
    found = find_events(only(peaks, numbers), steps, level)
    if not found:
        return [], numbers
    draws = int(peaks.series["draws"].max(initial=0))
    noise = np.array([_smallest(peaks, steps, able, draw, level) for draw in range(draws)])
    events = []
    for event in found:
        p = max(event.p, (1 + int((noise <= event.p).sum())) / (1 + draws))
        own = tuple(numbers[list(event.series)].tolist())
        events.append(replace(event, p=p, series=own))
    return [event for event in events if event.p <= level], numbers


def _smallest(peaks: Peaks, steps: Any, able: NDArray[np.bool_], draw: int, level: float) -> float:
    """Smallest p of one draw of all series, trusted by the other draws; 1 if above the level."""
    mine = peaks.matched["draw"] == draw
    drawn = {name: column[mine] for name, column in peaks.matched.items()}
    noise = replace(peaks, found=drawn | {"index": drawn["index"].astype(np.int64)})
    numbers = np.flatnonzero(able & trusted(peaks, but=draw))
    return min((e.p for e in find_events(only(noise, numbers), steps, level)), default=1.0)


def only(peaks: Peaks, chosen: Points) -> Peaks:
    """The peaks of chosen series, numbered anew; none between constant stretches, without a p."""
    number = np.full(len(peaks.series["status"]), -1)
    number[chosen] = np.arange(len(chosen))
    found: Table = dict(peaks.found)
    found["series"] = number[found["series"]]
    keep = np.isfinite(found["T"]) & ~np.isnan(found["Tt"]) & (found["series"] >= 0)
    return replace(
        peaks,
        found={name: column[keep] for name, column in found.items()},
        series={name: column[chosen] for name, column in peaks.series.items()},
    )
