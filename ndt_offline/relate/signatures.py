"""Signatures of failure: rules in plain terms about series of a training, each with its reason.

Every rule compares a run with its own first part (the first quarter of its points), and asks for
persistence: as many points in a row as `persistence` says. No rule knows another run. They are
rules of thumb with stated limits, not tests: a run that meets one deserves a look. A run of fewer
than `SHORTEST` points meets none.

    diverged     a loss, or the entries of a layer, are not numbers, persistently and to the end
    spike        the loss is above the median of the 50 points before by over 8 times the first
                 part's noise, 3 points in a row
    plateau      the loss ends above half of where it began, and since the first part it has
                 improved by under 5 % of that
    vanishing    a gradient is under 1/1000 of its median in the first part, persistently and to
                 the end, while the loss is still above half of where it began
    exploding    a gradient is over 10 times the largest of the first part, 3 points in a row
    collapse     a dimension of a representation is under half of its lowest value in the first
                 part, persistently and to the end
    dying        the share of dead units is 0.1 above its highest value in the first part,
                 persistently and to the end
    overfitting  the loss on the second probe is above its lowest level (the median of an eighth of
                 the points) by 10 %, and by 4 times its noise, persistently and to the end, while
                 that on the first probe is below what it was there
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]
Onset = int | None  # index of the first point at which a rule is met, or None

SIGNATURES = (
    "diverged", "spike", "plateau", "vanishing", "exploding", "collapse", "dying", "overfitting",
)  # fmt: skip
SHORTEST = 40  # points
WINDOW = 50
SPIKE, EXPLODED, VANISHED, COLLAPSED, DIED, OVERFIT = 8.0, 10.0, 1e-3, 0.5, 0.1, 1.1


def persistence(points: int) -> int:
    """Points in a row that a lasting state needs: 10, or 2 % of a longer series."""
    return max(10, points // 50)


def diverged(broken: npt.NDArray[np.bool_]) -> Onset:
    """From where on there are no numbers any more, of points [n] without one; see above."""
    return _to_the_end(broken)


def spike(loss: Series) -> Onset:
    """Where a loss jumps up by far more than its noise in the first part; see above."""
    if not _long(loss):
        return None
    before = [_median(loss[max(0, i - WINDOW) : i]) for i in range(1, len(loss))]
    behind = np.array([np.nan, *before])
    above = loss - behind
    first = above[: _first(loss)]
    centre = _median(first)
    noise = 1.4826 * _median(np.abs(first - centre))
    return _run_of(above > SPIKE * max(noise, 1e-12 * abs(loss[0])), 3, _first(loss))


def plateau(loss: Series) -> Onset:
    """Where the first part ends, if hardly anything was learned after it; see above."""
    if not _long(loss):
        return None
    at, few = _first(loss), max(5, len(loss) // 20)
    parts = loss[:5], loss[at - few : at], loss[-few:]
    begin, then, end = (_median(part) for part in parts)
    stuck = begin > 0 and end > begin / 2 and then - end < 0.05 * begin
    return at if stuck else None


def vanishing(gradient: Series, loss: Series) -> Onset:
    """From where on a gradient is gone while the loss is not; see above."""
    if not _long(gradient) or not _median(loss[-10:]) > _median(loss[:5]) / 2:
        return None
    level = _median(gradient[: _first(gradient)])
    return _to_the_end(gradient < VANISHED * level, np.isfinite(gradient))


def exploding(gradient: Series) -> Onset:
    """Where a gradient leaves everything that the first part had; see above."""
    if not _long(gradient):
        return None
    first = gradient[: _first(gradient)]
    highest = float(np.nanmax(first, initial=0.0))
    return _run_of(gradient > EXPLODED * highest, 3, len(first)) if highest > 0 else None


def collapse(dimension: Series) -> Onset:
    """From where on a representation has lost half of its smallest early dimension; see above."""
    if not _long(dimension):
        return None
    lowest = float(np.nanmin(dimension[: _first(dimension)], initial=np.inf))
    if not np.isfinite(lowest):
        return None
    return _to_the_end(dimension < COLLAPSED * lowest, np.isfinite(dimension))


def dying(dead: Series) -> Onset:
    """From where on more units are dead than ever in the first part; see above."""
    if not _long(dead):
        return None
    highest = float(np.nanmax(dead[: _first(dead)], initial=0.0))
    return _to_the_end(dead > highest + DIED, np.isfinite(dead))


def overfitting(first: Series, second: Series) -> Onset:
    """From where on the second probe's loss rises while the first's falls; see above."""
    if not _long(first) or not _long(second):
        return None
    wide = max(persistence(len(second)), len(second) // 8)
    level, half = _smooth(second, wide), len(second) // 2
    low = int(np.nanargmin(level))
    noise = 1.4826 * _median(np.abs(second - level)[half:])
    limit = level[low] + max((OVERFIT - 1) * abs(level[low]), 4 * noise)
    worse = (level > limit) & (first < _smooth(first, wide)[low])
    worse[:low] = False
    return _to_the_end(worse)


def _median(values: Series) -> float:
    """Of the points that there are; NaN without any."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _long(values: Series) -> bool:
    return bool(np.isfinite(values).sum() >= SHORTEST)


def _first(values: Series) -> int:
    """Where the first part ends."""
    return max(20, len(values) // 4)


def _smooth(values: Series, wide: int) -> Series:
    """The median of so many points around each point, fewer at the ends."""
    half, count = wide // 2, len(values)
    parts = (values[max(0, i - half) : min(count, i + half + 1)] for i in range(count))
    return np.array([_median(part) for part in parts])


def _run_of(met: npt.NDArray[np.bool_], count: int, start: int) -> Onset:
    """The first of `count` points in a row at or after `start`."""
    row = 0
    for i in range(start, len(met)):
        row = row + 1 if met[i] else 0
        if row == count:
            return i - count + 1
    return None


def _to_the_end(met: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_] | None = None) -> Onset:
    """The first point of the stretch that lasts to the end, if it is long enough.

    Points that are not known neither end nor lengthen it.
    """
    at = np.arange(len(met)) if known is None else np.flatnonzero(known)
    broken = np.flatnonzero(~met[at])
    start = int(broken[-1]) + 1 if len(broken) else 0
    return int(at[start]) if len(at) - start >= persistence(len(met)) else None
