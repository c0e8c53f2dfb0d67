"""Evidence beside a candidate step: where it lies, how large it is, whether it stays."""

from __future__ import annotations

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
    sizes, rest = ranking.sizes, without_others(x, found, ranking.others)
    sigma = _local_sigma(rest, found.at)
    # Not `rest`: a step back is what makes a shock of a shift.
    stays = _retained(np.broadcast_to(x, rest.shape), found.at, sizes)
    ends = np.array(conditional_sizes(ranking.T)) * ranking.errors
    low, high = ends.min(axis=0), ends.max(axis=0)
    first, last = _intervals(rest, found)
    return {
        "low": first,
        "high": last,
        "size_unbiased": ends[1],
        "size_low": low,
        "size_high": high,
        "sigma": sizes / sigma,
        "sigma_low": low / sigma,
        "sigma_high": high / sigma,
        "retained": stays,
    }


def without_others(x: Array, found: Search, others: Array) -> Array:
    """The series [n] once per candidate, without the other candidates' steps. [k, n]."""
    jumps = np.zeros((len(found.at), len(x)))
    jumps[:, found.at] = others
    return x - np.cumsum(jumps, axis=1)


def _mean(rest: Array, at: Points, first: int, last: int) -> tuple[Array, Array]:
    """Mean and variance of the points at + first .. at + last - 1 that exist. [k], [k]."""
    where = at[:, None] + np.arange(first, last)
    real = (where >= 0) & (where < rest.shape[1])
    values = np.take_along_axis(rest, np.clip(where, 0, rest.shape[1] - 1), axis=1)
    count = np.maximum(real.sum(axis=1), 1)
    mean = (values * real).sum(axis=1) / count
    return mean, (((values - mean[:, None]) * real) ** 2).sum(axis=1) / count


def _local_sigma(rest: Array, at: Points) -> Array:
    """Root mean variance of the 50 points before and the 50 after, about their own means."""
    before, after = _mean(rest, at, -LOCAL, 0)[1], _mean(rest, at, 0, LOCAL)[1]
    sigma = np.sqrt((before + after) / 2)
    return np.where(sigma > 0, sigma, np.nan)


def _retained(rest: Array, at: Points, sizes: Array) -> Array:
    """Level 15 to 25 points later minus level of the 10 points before, over the size."""
    later, before = _mean(rest, at, LATER - 5, LATER + 6)[0], _mean(rest, at, -10, 0)[0]
    enough = at + LATER < rest.shape[1]
    return np.where(enough, (later - before) / sizes, np.nan)


def _intervals(rest: Array, found: Search) -> tuple[Points, Points]:
    """Shortest run of points around each candidate that holds .9 of the posterior of the step.

    Flat prior on place and size, Gaussian noise as fitted, the window of the candidate's filter.
    Offsets from the candidate, first and last.
    """
    if not len(found.at):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    noise, half = found.noise, HALVES[-1]
    levels = rest - np.take_along_axis(rest, found.at[:, None], axis=1)
    data = cut(whiten(levels, noise.phi), found.at)
    weight = cut(np.broadcast_to(1.0 / noise.volatility, rest.shape), found.at)
    halves = np.array(found.bank.halves)[found.row]
    inside = np.abs(np.arange(-half, half) + 0.5) < halves[:, None]
    weight = np.where(inside, weight / found.scale[found.row][:, None], 0.0)
    shifted = _shifted(noise.phi) * weight[:, None]
    nuisance = found.bank.designs[found.row, 1:] * weight[:, None]
    data = data * weight
    # Least squares on the nuisance; the ridge keeps columns that are 0, or nearly so, harmless.
    gram = nuisance @ nuisance.swapaxes(1, 2)
    most = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    solved = np.linalg.solve(gram + 1e-12 * most * np.eye(4), nuisance)
    data = data - ((data[:, None] @ nuisance.swapaxes(1, 2)) @ solved)[:, 0]
    mixed = shifted @ nuisance.swapaxes(1, 2)
    power = (shifted**2).sum(axis=2) - (mixed * (shifted @ solved.swapaxes(1, 2))).sum(axis=2)
    power = np.maximum(power, 1e-300)
    log = (shifted @ data[:, :, None])[:, :, 0] ** 2 / (2 * power) - 0.5 * np.log(power)
    share = np.exp(log - log.max(axis=1, keepdims=True))
    runs = [_run(row / row.sum()) for row in share]
    first, last = np.array(runs, np.int64).T
    return first - AROUND, last - AROUND


def cut(signal: Array, at: Points) -> Array:
    """Row k of the signal [k, n] around point at[k]: 128 before, 128 from it on. [k, 256]."""
    where = at[:, None] + np.arange(-HALVES[-1], HALVES[-1])
    return np.take_along_axis(signal, np.clip(where, 0, signal.shape[1] - 1), axis=1)


def _shifted(phi: Array) -> Array:
    """Whitened steps at -12..12 points from the centre of the window. [25, 256]."""
    shape, half = whitened_step(phi), HALVES[-1]
    step = np.full(3 * half + AROUND, shape[-1])
    step[: half + AROUND] = 0.0
    step[half + AROUND : half + AROUND + ORDER + 1] = shape
    view = np.lib.stride_tricks.sliding_window_view(step, 2 * half)
    return view[: 2 * AROUND + 1][::-1]


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
