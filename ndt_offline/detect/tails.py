"""Heavy tails: is a jump a step, or one wild innovation of persistent noise?"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.evidence import weigh, windows
from ndt_offline.detect.filters import HALVES
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
    log[finite] = _constants() - (nu[finite] + 1) / 2 * np.log1p(z2[finite] / nu[finite])
    log[-1] = -0.5 * np.log(2 * np.pi) - z2[-1] / 2
    beyond = np.empty(len(GRID))
    beyond[finite] = stdtr(nu[finite, 0], -limit / scale[finite, 0])
    beyond[-1] = ndtr(-limit / scale[-1, 0])
    total = log @ count - kept * np.log(scale[:, 0])
    total += (len(size) - kept) * np.log(2 * beyond + 1e-300)
    best = int(total.argmax())
    return float(GRID[best]), float(scale[best, 0])


@cache
def _constants() -> Array:
    """Log of the density of Student's t at 0, for the finite values of the grid. [14, 1]."""
    from scipy.special import gammaln

    nu = np.array(GRID[:-1])[:, None]
    return np.asarray(gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi))


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
    data = whiten(windows(x, found, ranking.others), found.noise.phi)[:, ORDER:]
    weight = np.where(_reached(found, len(x)), weigh(found), 0.0)
    gain = _gain(found.bank.designs, data, weight, nu, scale)
    best = np.sqrt(np.maximum(2 * gain.max(axis=0), 0.0))
    return np.sign(ranking.T) * best, nu


def _reached(found: Search, n: int) -> NDArray[np.bool_]:
    """Which points around each candidate each filter looks at, if all of them exist. [w, k, 256]."""
    halves = np.array(found.bank.halves)[:, None]
    fits = (found.at >= halves + ORDER) & (found.at <= n - halves)
    inside = np.abs(np.arange(-HALVES[-1], HALVES[-1]) + 0.5) < halves
    return fits[:, :, None] & inside[:, None]


def _gain(designs: Array, data: Array, weight: Array, nu: float, scale: float) -> Array:
    """Log-likelihood with the step minus without it, per filter and row of data. [w, k].

    designs [w, 5, m], the step first; data [k, m]; weight [w, k, m]. `ITERATIONS` of reweighted
    least squares; a column that is 0 stays out of the fit.
    """
    w, k, m = weight.shape
    pairs = (designs[:, :, None] * designs[:, None]).reshape(w, 25, m).swapaxes(1, 2)
    square = np.tile(weight**2, (1, 2, 1))  # first with the step, then without
    data = np.tile(data, (2, 1))
    reweighted = square
    used = np.ones((w, 2 * k, 5))
    used[:, k:, 0] = 0.0
    ridge = _ridge((square @ pairs)[:, :, ::6] * used)
    both = used[:, :, :, None] * used[:, :, None]
    for _ in range(ITERATIONS):
        normal = (reweighted @ pairs).reshape(w, 2 * k, 5, 5) * both + ridge
        right = ((reweighted * data) @ designs.swapaxes(1, 2)) * used
        fit = np.linalg.solve(normal, right[..., None])[..., 0]
        off = (data - fit @ designs) ** 2 * (square / scale**2)
        reweighted = square * ((nu + 1) / (nu + off))
    loss = (nu + 1) / 2 * np.log1p(off / nu).sum(axis=2)
    return np.asarray(loss[:, k:] - loss[:, :k], np.float64)


def _ridge(power: Array) -> Array:
    """A little on the diagonal, and something on it where a column is 0. [..., 5] -> [..., 5, 5]."""
    most = power.max(axis=-1, keepdims=True)
    extra = np.where(power > 0, 1e-12 * most, np.maximum(most, 1e-300))
    return np.asarray(extra[..., None] * np.eye(5), np.float64)
