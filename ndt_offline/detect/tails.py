"""Heavy tails: is a jump a step, or one wild innovation of persistent noise?"""

from __future__ import annotations

from functools import cache

import numpy as np

from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.evidence import cut, without_others
from ndt_offline.detect.filters import HALVES
from ndt_offline.detect.noise import ORDER, whiten
from ndt_offline.detect.search import Search
from ndt_offline.detect.transition import Array

GRID = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 48.0, np.inf)
GAUSSIAN = 12.0  # degrees of freedom from which on tails count as Gaussian
CENSOR = 0.99
GROUPS = 64
ITERATIONS = 6


@cache
def _quartiles() -> Array:
    """.75 quantile of Student's t for the grid."""
    from scipy.special import ndtri, stdtrit

    return np.array([ndtri(0.75) if np.isinf(v) else stdtrit(v, 0.75) for v in GRID])


def fit_tails(scaled: Array) -> tuple[float, float]:
    """Degrees of freedom and scale of Student-t innovations, by censored maximum likelihood.

    Innovations [n] are in local SD. Those above the .99 quantile of |e| count only as being
    above it: a few steps cannot make the tails look heavy. The scale of each candidate fits the
    median of |e|. Degrees of freedom come from a grid of 15 values.
    """
    from scipy.special import ndtr, stdtr

    size = np.sort(np.abs(scaled))
    kept = int(CENSOR * len(size))
    limit = size[kept]
    edges = np.linspace(0, kept, min(GROUPS, kept) + 1).astype(int)
    count = np.diff(edges)
    squares = np.add.reduceat(size[:kept] ** 2, edges[:-1]) / count
    nu = np.array(GRID)[:, None]
    scale = size[len(size) // 2] / _quartiles()[:, None]
    finite = slice(0, -1)
    z2 = squares / scale**2
    log = np.empty_like(z2)
    log[finite] = _constant(nu[finite]) - (nu[finite] + 1) / 2 * np.log1p(z2[finite] / nu[finite])
    log[-1] = -0.5 * np.log(2 * np.pi) - z2[-1] / 2
    beyond = np.empty(len(GRID))
    beyond[finite] = stdtr(nu[finite, 0], -limit / scale[finite, 0])
    beyond[-1] = ndtr(-limit / scale[-1, 0])
    total = log @ count - kept * np.log(scale[:, 0])
    total += (len(size) - kept) * np.log(2 * beyond + 1e-300)
    best = int(total.argmax())
    return float(GRID[best]), float(scale[best, 0])


def _constant(nu: Array) -> Array:
    from scipy.special import gammaln

    return gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)


def t_statistics(x: Array, found: Search, ranking: Ranking) -> tuple[Array, float]:
    """Tt of every candidate [k], and the degrees of freedom of the series.

    Tt = sign * sqrt(2 * (log-likelihood with the step - without)) under Student-t innovations, in
    the window of the candidate's own filter, with the same nuisance and the other candidates
    removed; times T / T_local, the calibration that T has. Where the tails are Gaussian (12 or
    more degrees of freedom) Tt is T. A single wild innovation of persistent noise has a large T
    and a small Tt; a step has both.
    """
    noise = found.noise
    scaled = noise.innovations[ORDER:] / noise.volatility[ORDER:]
    nu, scale = fit_tails(scaled)
    if nu >= GAUSSIAN or not len(found.at):
        return ranking.T.copy(), nu
    data, design = windows(x, found, ranking.others)
    gauss = _fit(design, data, np.ones_like(data))
    normal = design @ design.swapaxes(1, 2) + _ridge(design)
    local = gauss[:, 0] / np.sqrt(np.linalg.inv(normal)[:, 0, 0])
    without = design.copy()
    without[:, 0] = 0.0
    gain = _loss(without, data, nu, scale) - _loss(design, data, nu, scale)
    plain = np.sign(local) * np.sqrt(np.maximum(2 * gain, 0.0))
    return plain * np.abs(ranking.T) / np.maximum(np.abs(local), 1e-12), nu


def windows(x: Array, found: Search, others: Array) -> tuple[Array, Array]:
    """Innovations around each candidate, without the others, in local SD, and the design.

    data [k, 256], design [k, 5, 256]: step, then nuisance; zero outside the candidate's filter.
    """
    noise, half = found.noise, HALVES[-1]
    rest = without_others(x - x.mean(), found, others)
    scale = np.broadcast_to(noise.volatility, rest.shape)
    halves = np.array(found.bank.halves)[found.row]
    inside = np.abs(np.arange(-half, half) + 0.5) < halves[:, None]
    weight = np.where(inside, 1.0 / cut(scale, found.at), 0.0)
    design = found.bank.designs[found.row] * weight[:, None]
    return cut(whiten(rest, noise.phi), found.at) * weight, design


def _ridge(design: Array) -> Array:
    """A little on the diagonal; 1 where a column is not used at all."""
    power = (design**2).sum(axis=2)
    extra: Array = np.where(power > 0, 1e-12 * power.max(axis=1, keepdims=True), 1.0)
    return extra[:, :, None] * np.eye(design.shape[1])


def _fit(design: Array, data: Array, weight: Array) -> Array:
    weighted = design * weight[:, None]
    normal = weighted @ design.swapaxes(1, 2) + _ridge(design)
    return np.asarray(np.linalg.solve(normal, weighted @ data[:, :, None])[:, :, 0], np.float64)


def _loss(design: Array, data: Array, nu: float, scale: float) -> Array:
    """Minus the log-likelihood at the fit of `ITERATIONS` reweighted least squares. [k]."""
    weight = np.ones_like(data)
    for _ in range(ITERATIONS):
        rest = (data - (_fit(design, data, weight)[:, None] @ design)[:, 0]) / scale
        weight = (nu + 1) / (nu + rest**2)
    return (nu + 1) / 2 * np.log1p(rest**2 / nu).sum(axis=1)
