"""Evidence beside a candidate step: where it lies, how large it is, whether it stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.around import BEFORE, around, windows
from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.place import intervals
from ndt_offline.detect.pursuit import Search
from ndt_offline.detect.selection import conditional_sizes
from ndt_offline.detect.transition import Array, Points

LOCAL = 50  # points on either side that local sigma is taken over
LATER = 20  # points after which a shift should still be there

# The envelope over Gaussian nulls: exp(RATE - FALL |T|) false steps per 1000 points.
RATE, FALL = 9.30, 2.38


def p_value(T: Array, points: int | Array) -> Array:
    """Chance that Gaussian noise of so many points has a step of at least |T| anywhere.

    1 - exp(-n/1000 exp(9.30 - 2.38 |T|)): the envelope over the Gaussian nulls of the battery,
    so conservative on most of them. Not meant below T = 4, where no candidates are kept.
    """
    return -np.expm1(-np.asarray(points) / 1000 * np.exp(RATE - FALL * np.abs(T)))


def describe_steps(
    x: Array, found: Search, ranking: Ranking, Tt: Array, nu: float
) -> dict[str, NDArray[Any]]:
    """Columns [k] of the candidates of one clean piece [n]; nu is of its innovations.

    low, high: offsets in points; the others as in `Transition`.
    """
    rest = windows(x, found, ranking.others)
    sigma = _local_sigma(rest, found.at, len(x))
    ends = np.array(conditional_sizes(ranking.T)) * ranking.errors
    low, high = ends.min(axis=0), ends.max(axis=0)
    first, last = intervals(rest, found, Tt, nu)
    return {
        "low": first,
        "high": last,
        "size_unbiased": ends[1],
        "size_low": low,
        "size_high": high,
        "sigma": ranking.sizes / sigma,
        "sigma_low": low / sigma,
        "sigma_high": high / sigma,
        "retained": _retained(x, found.at, ranking.sizes),
    }


def _local_sigma(rest: Array, at: Points, n: int) -> Array:
    """Root mean variance of the 50 points before and the 50 after, about their own means."""
    sides = rest[:, BEFORE - LOCAL : BEFORE + LOCAL].reshape(-1, 2, LOCAL)
    where = at[:, None] + np.arange(-LOCAL, LOCAL)
    real = ((where >= 0) & (where < n)).reshape(sides.shape)
    count = np.maximum(real.sum(axis=2), 1)
    mean = (sides * real).sum(axis=2) / count
    variance = ((sides - mean[:, :, None]) ** 2 * real).sum(axis=2) / count
    sigma = np.sqrt(variance.mean(axis=1))
    return np.where(sigma > 0, sigma, np.nan)


def _retained(x: Array, at: Points, sizes: Array) -> Array:
    """Level 15 to 25 points later minus level of the 10 points before, over the size.

    In the series as it is: a step back is what makes a shock of a shift.
    """
    n = len(x)
    where = at[:, None] + np.arange(LATER - 5, LATER + 6)
    real = where < n
    later = (x[np.minimum(where, n - 1)] * real).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    before = x[around(at, -10, 0, n)].mean(axis=1)
    return np.where(at + LATER < n, (later - before) / sizes, np.nan)
