"""The points around each candidate step, without the other candidates."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.filters import HALVES
from ndt_offline.detect.noise import ORDER
from ndt_offline.detect.pursuit import Search
from ndt_offline.detect.transition import Array, Points

BEFORE = HALVES[-1] + ORDER  # points of a window before its candidate


def windows(x: Array, found: Search, others: Array) -> Array:
    """The 136 points before each candidate and the 128 from it on, without the other candidates.

    [k, 264], less the value at the candidate. Where a window sticks out of the series its end
    is repeated.
    """
    levels = x[around(found.at, -BEFORE, HALVES[-1], len(x))]
    place = found.at[None] - found.at[:, None] + BEFORE
    row, column = np.nonzero((place >= 0) & (place < levels.shape[1]))
    jumps = np.zeros(levels.shape)
    jumps[row, place[row, column]] = others[row, column]
    rest = levels - np.cumsum(jumps, axis=1)
    return np.asarray(rest - rest[:, BEFORE : BEFORE + 1], np.float64)


def around(at: Points, first: int, last: int, n: int) -> Points:
    """Indices at + first .. at + last - 1, none outside the series. [k, last - first]."""
    return np.minimum(np.maximum(at[:, None] + np.arange(first, last), 0), n - 1)


def weigh(found: Search) -> Array:
    """One over the local volatility around each candidate. [k, 256]."""
    volatility = found.noise.volatility
    return 1.0 / volatility[around(found.at, -HALVES[-1], HALVES[-1], len(volatility))]
