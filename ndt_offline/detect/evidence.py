"""Evidence beside a candidate step: where it lies, how large it is, whether it stays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.filters import HALVES
from ndt_offline.detect.noise import ORDER, whiten, whitened_step
from ndt_offline.detect.pursuit import Search
from ndt_offline.detect.selection import conditional_sizes
from ndt_offline.detect.transition import Array, Points

LEVEL = 0.9  # nominal coverage of the interval of the step
LOCAL = 50  # points on either side that local sigma is taken over
LATER = 20  # points after which a shift should still be there
BEFORE = HALVES[-1] + ORDER  # points of a window before its candidate
AROUND = 12  # points on either side that may hold the step (less than any half width)

# The envelope over Gaussian nulls: exp(RATE - FALL |T|) false steps per 1000 points.
RATE, FALL = 9.30, 2.38


def p_value(T: Array, points: int | Array) -> Array:
    """Chance that Gaussian noise of so many points has a step of at least |T| anywhere.

    1 - exp(-n/1000 exp(9.30 - 2.38 |T|)): the envelope over the Gaussian nulls of the battery,
    so conservative on most of them. Not meant below T = 4, where no candidates are kept.
    """
    return -np.expm1(-np.asarray(points) / 1000 * np.exp(RATE - FALL * np.abs(T)))


def describe_steps(x: Array, found: Search, ranking: Ranking) -> dict[str, NDArray[Any]]:
    """Columns [k] of the candidates of one clean piece [n].

    low, high: offsets in points; the others as in `Transition`.
    """
    rest = windows(x, found, ranking.others)
    sigma = _local_sigma(rest, found.at, len(x))
    ends = np.array(conditional_sizes(ranking.T)) * ranking.errors
    low, high = ends.min(axis=0), ends.max(axis=0)
    first, last = _intervals(rest, found)
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


def windows(x: Array, found: Search, others: Array) -> Array:
    """The 136 points before each candidate and the 128 from it on, without the other candidates.

    [k, 264], less the value at the candidate. Where a window sticks out of the series its end
    is repeated.
    """
    levels = x[_around(found.at, -BEFORE, HALVES[-1], len(x))]
    place = found.at[None] - found.at[:, None] + BEFORE
    row, column = np.nonzero((place >= 0) & (place < levels.shape[1]))
    jumps = np.zeros(levels.shape)
    jumps[row, place[row, column]] = others[row, column]
    rest = levels - np.cumsum(jumps, axis=1)
    return np.asarray(rest - rest[:, BEFORE : BEFORE + 1], np.float64)


def _around(at: Points, first: int, last: int, n: int) -> Points:
    """Indices at + first .. at + last - 1, none outside the series. [k, last - first]."""
    return np.minimum(np.maximum(at[:, None] + np.arange(first, last), 0), n - 1)


def weigh(found: Search) -> Array:
    """One over the local volatility around each candidate. [k, 256]."""
    volatility = found.noise.volatility
    return 1.0 / volatility[_around(found.at, -HALVES[-1], HALVES[-1], len(volatility))]


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
    before = x[_around(at, -10, 0, n)].mean(axis=1)
    return np.where(at + LATER < n, (later - before) / sizes, np.nan)


def _intervals(rest: Array, found: Search) -> tuple[Points, Points]:
    """Shortest run of points around each candidate that holds .9 of the posterior of the step.

    Flat prior on place and size, Gaussian noise as fitted, the window of the candidate's filter.
    Offsets from the candidate, first and last.
    """
    if not len(found.at):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    data = whiten(rest, found.noise.phi)[:, ORDER:]
    halves = np.array(found.bank.halves)[found.row]
    inside = np.abs(np.arange(-HALVES[-1], HALVES[-1]) + 0.5) < halves[:, None]
    weight = np.where(inside, (weigh(found) / found.scale[found.row][:, None]) ** 2, 0.0)
    steps, nuisance = _shifted(found.noise.phi), found.bank.designs[found.row, 1:]
    weighted = nuisance * weight[:, None]
    # Least squares on the nuisance; the ridge keeps columns that are 0, or nearly so, harmless.
    gram = weighted @ nuisance.swapaxes(1, 2)
    most = gram.reshape(-1, 16)[:, ::5].sum(axis=1)[:, None, None]
    mixed = np.empty((*weighted.shape[:2], steps.shape[1] + 1))
    mixed[:, :, :-1] = (weighted.reshape(-1, len(steps)) @ steps).reshape(-1, 4, steps.shape[1])
    mixed[:, :, -1:] = weighted @ data[:, :, None]
    solved = np.linalg.solve(gram + 1e-12 * most * np.eye(4), mixed)
    shared = mixed[:, :, :-1]
    power = weight @ steps**2 - (shared * solved[:, :, :-1]).sum(axis=1)
    power = np.maximum(power, 1e-300)
    product = (weight * data) @ steps - (shared * solved[:, :, -1:]).sum(axis=1)
    log = product**2 / (2 * power) - 0.5 * np.log(power)
    share = np.exp(log - log.max(axis=1, keepdims=True))
    runs = [_run(row / row.sum()) for row in share]
    first, last = np.array(runs, np.int64).T
    return first - AROUND, last - AROUND


def _shifted(phi: Array) -> Array:
    """Whitened steps at -12..12 points from the centre of the window. [256, 25]."""
    shape, half = whitened_step(phi), HALVES[-1]
    step = np.full(3 * half + AROUND, shape[-1])
    step[: half + AROUND] = 0.0
    step[half + AROUND : half + AROUND + ORDER + 1] = shape
    return step[_places()]


@cache
def _places() -> Points:
    """Where the points of the window lie in a series that steps at half + 12. [256, 25]."""
    return np.arange(2 * HALVES[-1])[:, None] + np.arange(2 * AROUND, -1, -1)


def _run(share: Array) -> tuple[int, int]:
    """Grow a run from the most likely point, each time to the likelier side, to .9."""
    a = b = int(share.argmax())
    held, many = float(share[a]), share.tolist()
    while held < LEVEL:
        left = many[a - 1] if a > 0 else -1.0
        right = many[b + 1] if b + 1 < len(many) else -1.0
        a, b = (a - 1, b) if left >= right else (a, b + 1)
        held += max(left, right)
    return a, b
