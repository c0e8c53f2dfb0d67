"""Pieces of a series that can be tested: finite values at one cadence, not constant."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.transition import Array, Points, Steps

STATUS = ("ok", "low power", "too short", "constant", "irregular")
OK, LOW_POWER, TOO_SHORT, CONSTANT, IRREGULAR = range(5)

SHORTEST = 72  # points; nothing is tested below
ENOUGH = 320  # points; below, most steps are missed
GAP = 3.0  # intervals; a longer gap is a border
CHANGE = 1.5  # of the cadence
STRETCH = 41  # intervals whose median is the local cadence
FROZEN = 72  # equal values in a row that count as a constant stretch


def split(values: Array, steps: Steps) -> tuple[int, list[Points]]:
    """What can be tested of values [n] at training steps [n]: status, and indices per piece.

    Points that are not finite are left out, as missing ones are; one or two missing in a row
    do no harm to a test on the index. The series is cut at gaps of more than 3 intervals, where
    the cadence changes more than 1.5 times, and around 72 or more equal values. Pieces under 72
    points are not tested. A cadence that changes all the time is `irregular`: nothing is tested.
    """
    kept = np.flatnonzero(np.isfinite(values))
    if len(kept) < SHORTEST:
        return TOO_SHORT, []
    at = steps[kept]
    borders = _cadence_borders(at[1:] - at[:-1])
    if borders is None:
        return IRREGULAR, []
    pieces = np.split(kept, borders) if len(borders) else [kept]
    pieces = [p for p in pieces if len(p) >= SHORTEST]
    if not pieces:
        return TOO_SHORT, []
    moving = [q for p in pieces for q in _without_frozen(values, p) if len(q) >= SHORTEST]
    if not moving:
        return CONSTANT, []
    return (OK if max(map(len, moving)) >= ENOUGH else LOW_POWER), moving


def _cadence_borders(intervals: Steps) -> Points | None:
    """Where to cut, as positions in the kept points; None if the cadence varies throughout."""
    if (intervals == intervals[0]).all():
        return np.zeros(0, np.int64)
    from scipy.ndimage import median_filter

    intervals = intervals.astype(np.float64)
    local = median_filter(intervals, STRETCH, mode="reflect")
    gaps = np.flatnonzero(intervals > GAP * local) + 1
    changes = _changes(local)
    if changes is None:
        return None
    return np.unique(np.r_[gaps, changes]).astype(np.int64)


def _changes(local: Array) -> list[int] | None:
    """Points where the local cadence leaves a factor 1.5 around where it was; None if gradual."""
    found: list[int] = []
    start = 0
    while True:
        ratio = local[start:] / np.median(local[start : start + STRETCH])
        away = np.flatnonzero((ratio > CHANGE) | (ratio < 1 / CHANGE))
        away = away[away >= STRETCH // 2]  # at its own edge a median of intervals is noisy
        if not len(away):
            return found
        at = start + int(away[0])
        before, after = local[max(start, at - 3)], local[min(at + 2, len(local) - 1)]
        if max(after / before, before / after) < CHANGE**0.5:
            return None
        found.append(at)
        start = at


def _without_frozen(values: Array, piece: Points) -> list[Points]:
    """The piece cut around constant stretches."""
    own = values[piece]
    changed = np.flatnonzero(own[1:] != own[:-1]) + 1
    if len(changed) == len(piece) - 1:
        return [piece]
    starts, ends = np.r_[0, changed], np.r_[changed, len(piece)]
    frozen = ends - starts >= FROZEN
    if not frozen.any():
        return [piece]
    moving = np.ones(len(piece), bool)
    for a, b in zip(starts[frozen].tolist(), ends[frozen].tolist(), strict=True):
        moving[a:b] = False
    kept = np.flatnonzero(moving)
    return np.split(piece[kept], np.flatnonzero(np.diff(kept) > 1) + 1)
