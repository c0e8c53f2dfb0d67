"""Evidence beside a candidate step: where it lies, how large it is, whether it stays."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.filters import columns
from ndt_offline.detect.noise import ORDER, whiten, whitened_step
from ndt_offline.detect.search import Search
from ndt_offline.detect.transition import Array

LEVEL = 0.9  # nominal coverage of the intervals
NORMAL = 1.6449  # its two-sided normal quantile
LOCAL = 50  # points on either side that local sigma is taken over
LATER = 20  # points after which a shift should still be there
AROUND = 12  # points on either side that may hold the step

# The envelope over Gaussian nulls: exp(RATE - FALL |T|) false steps per 1000 points.
RATE, FALL = 9.30, 2.38


def p_value(T: Array, points: int | Array) -> Array:
    """Chance that Gaussian noise of so many points has a step of at least |T| anywhere.

    1 - exp(-n/1000 exp(9.30 - 2.38 |T|)): the envelope over the Gaussian nulls of the battery,
    so conservative on most of them. Not meant below T = 4, where no candidates are kept.
    """
    return -np.expm1(-np.asarray(points) / 1000 * np.exp(RATE - FALL * np.abs(T)))


def describe_steps(x: Array, found: Search, ranking: Ranking) -> dict[str, Array]:
    """Columns [k] of the candidates of one clean piece [n].

    low, high: offsets in points; the others as in `Transition`.
    """
    k = len(found.at)
    rest = [_without(x, found, ranking.others[i]) for i in range(k)]
    at, sizes = found.at.tolist(), ranking.sizes
    sigma = np.array([_local_sigma(r, i) for r, i in zip(rest, at, strict=True)])
    stays = np.array([_retained(r, i, s) for r, i, s in zip(rest, at, sizes.tolist(), strict=True)])
    where = np.array([_interval(r, found, i) for i, r in enumerate(rest)], np.int64).reshape(-1, 2)
    low, high = sizes - NORMAL * ranking.errors, sizes + NORMAL * ranking.errors
    return {
        "low": where[:, 0],
        "high": where[:, 1],
        "size_low": low,
        "size_high": high,
        "sigma": sizes / sigma,
        "sigma_low": low / sigma,
        "sigma_high": high / sigma,
        "retained": stays,
    }


def _without(x: Array, found: Search, others: Array) -> Array:
    jumps = np.zeros(len(x))
    jumps[found.at] = others
    return x - np.cumsum(jumps)


def _local_sigma(rest: Array, at: int) -> float:
    """Root mean variance of the 50 points before and the 50 after, about their own means."""
    before, after = rest[max(0, at - LOCAL) : at], rest[at : at + LOCAL]
    return float(np.sqrt((before.var() + after.var()) / 2)) or float("nan")


def _retained(rest: Array, at: int, size: float) -> float:
    """Level 15 to 25 points later minus level of the 10 points before, over the size."""
    later = rest[at + LATER - 5 : at + LATER + 6]
    if len(later) < 5 or size == 0:
        return float("nan")
    return float((later.mean() - rest[max(0, at - 10) : at].mean()) / size)


def _interval(rest: Array, found: Search, i: int) -> tuple[int, int]:
    """Shortest run of points around the candidate that holds .9 of the posterior of the step.

    Flat prior on place and size, Gaussian noise as fitted, the window of the candidate's filter.
    """
    row, at = int(found.row[i]), int(found.at[i])
    half, noise = found.bank.halves[row], found.noise
    reach = min(AROUND, half - 2)
    window = slice(at - half, at + half)
    weight = 1.0 / (noise.volatility[window] * found.scale[row])
    data = whiten(rest[at - half - ORDER : at + half] - rest[at], noise.phi)[ORDER:] * weight
    nuisance = columns(noise.phi, half)[1:] * weight
    shifted = _shifted(noise.phi, half, reach) * weight
    basis = np.linalg.qr(nuisance.T)[0]
    data = data - basis @ (basis.T @ data)
    shifted = shifted - (shifted @ basis) @ basis.T
    power = np.maximum((shifted**2).sum(axis=1), 1e-300)
    log = (shifted @ data) ** 2 / (2 * power) - 0.5 * np.log(power)
    share = np.exp(log - log.max())
    return _run(share / share.sum(), reach)


def _shifted(phi: Array, half: int, reach: int) -> Array:
    """Whitened steps at -reach..reach from the centre of the window. [2 reach + 1, 2 half]."""
    step = np.full(2 * half + 2 * reach, whitened_step(phi)[-1])
    step[: ORDER + 1] = whitened_step(phi)
    out = np.zeros((2 * reach + 1, 2 * half))
    for j in range(2 * reach + 1):
        start = half + j - reach
        out[j, start:] = step[: 2 * half - start]
    return out


def _run(share: Array, centre: int) -> tuple[int, int]:
    """Grow a run from the most likely point, each time to the likelier side, to .9."""
    a = b = int(share.argmax())
    while share[a : b + 1].sum() < LEVEL:
        left = share[a - 1] if a > 0 else -1.0
        right = share[b + 1] if b + 1 < len(share) else -1.0
        a, b = (a - 1, b) if left >= right else (a, b + 1)
    return a - centre, b - centre
