"""Heavy tails: is a jump a step, or one wild innovation of persistent noise?"""

from __future__ import annotations

from functools import cache

import numpy as np

from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.evidence import cut, without_others
from ndt_offline.detect.filters import CUBIC, HALVES
from ndt_offline.detect.noise import ORDER, whiten
from ndt_offline.detect.pursuit import Search
from ndt_offline.detect.transition import Array

GRID = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 48.0, np.inf)
GAUSSIAN = 40.0  # degrees of freedom from which on tails count as Gaussian
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
    middle = float(size[len(size) // 2])
    if middle <= 0.0:  # values on a grid, most of them equal: no tail to fit
        return np.inf, 1.0
    kept = int(CENSOR * len(size))
    limit = size[kept]
    edges = np.linspace(0, kept, min(GROUPS, kept) + 1).astype(int)
    count = np.diff(edges)
    squares = np.add.reduceat(size[:kept] ** 2, edges[:-1]) / count
    nu = np.array(GRID)[:, None]
    scale = middle / _quartiles()[:, None]
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
    """Tt of every candidate [k], and the degrees of freedom of the series (NaN if there is none).

    Tt = sign * sqrt(2 * (log-likelihood with the step - without)) under Student-t innovations,
    with the nuisance of the step filters and the other candidates removed: the largest over the
    filters' windows. Where the tails are Gaussian (`GAUSSIAN` degrees of freedom or more) Tt is
    T. A single wild innovation of persistent noise has a large T and a small Tt; a step has both.
    """
    if not len(found.at):
        return np.zeros(0), np.nan
    nu, scale = fit_tails(found.noise.innovations[ORDER:] / found.noise.volatility[ORDER:])
    if nu >= GAUSSIAN:
        return ranking.T.copy(), nu
    best = np.zeros(len(found.at))
    rest = without_others(x - x.mean(), found, ranking.others)
    data = cut(whiten(rest, found.noise.phi), found.at)
    weight = cut(np.broadcast_to(1.0 / found.noise.volatility, rest.shape), found.at)
    for design, half in zip(found.bank.designs, found.bank.halves, strict=True):
        fits = np.flatnonzero((found.at >= half + ORDER) & (found.at <= len(x) - half))
        window = slice(HALVES[-1] - half, HALVES[-1] + half)
        columns = design[: 5 if half >= CUBIC else 3, window]
        gain = _gain(columns, data[fits, window], weight[fits, window], nu, scale)
        best[fits] = np.maximum(best[fits], np.sqrt(np.maximum(2 * gain, 0.0)))
    return np.sign(ranking.T) * best, nu


def _gain(columns: Array, data: Array, weight: Array, nu: float, scale: float) -> Array:
    """Log-likelihood of each row of data [k, m] with the step minus without it. [k]."""
    design = columns * weight[:, None]
    both = np.concatenate([design, design])
    both[len(data) :, 0] = 0.0
    loss = _loss(both, np.tile(data * weight, (2, 1)), nu, scale)
    return loss[len(data) :] - loss[: len(data)]


def _loss(design: Array, data: Array, nu: float, scale: float) -> Array:
    """Minus the log-likelihood at the fit of `ITERATIONS` reweighted least squares. [k].

    A column that is 0 stays out of the fit.
    """
    weighted, transposed = design, design.swapaxes(1, 2)
    power = (design**2).sum(axis=2)
    most = power.max(axis=1, keepdims=True)
    ridge = np.where(power > 0, 1e-12 * most, most)[:, :, None] * np.eye(design.shape[1])
    for _ in range(ITERATIONS):
        fit = np.linalg.solve(weighted @ transposed + ridge, weighted @ data[:, :, None])
        square = (data - (transposed @ fit)[:, :, 0]) ** 2 / scale**2
        weighted = design * ((nu + 1) / (nu + square))[:, None]
    return np.asarray((nu + 1) / 2 * np.log1p(square / nu).sum(axis=1), np.float64)
