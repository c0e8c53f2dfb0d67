"""Heavy tails: is a jump a step, or one wild innovation of persistent noise?"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from ndt_offline.detect.around import weigh, windows
from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.noise import ORDER, whiten
from ndt_offline.detect.packing import Packing, packings
from ndt_offline.detect.pursuit import Search
from ndt_offline.detect.transition import Array, Points

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
    starts, count = _groups(kept)
    squares = np.add.reduceat(size[:kept] ** 2, starts) / count
    nu = np.array(GRID)[:, None]
    scale = middle / _quartiles()[:, None]
    finite = slice(0, -1)
    z2 = squares / scale**2
    log = np.empty_like(z2)
    log[finite] = _constants() - (nu[finite] + 1) / 2 * np.log(1.0 + z2[finite] / nu[finite])
    log[-1] = -0.5 * np.log(2 * np.pi) - z2[-1] / 2
    beyond = np.empty(len(GRID))
    beyond[finite] = stdtr(nu[finite, 0], -limit / scale[finite, 0])
    beyond[-1] = ndtr(-limit / scale[-1, 0])
    total = log @ count - kept * np.log(scale[:, 0])
    total += (len(size) - kept) * np.log(2 * beyond + 1e-300)
    best = int(total.argmax())
    return float(GRID[best]), float(scale[best, 0])


@lru_cache(64)
def _groups(kept: int) -> tuple[Points, Points]:
    """Where up to 64 groups of so many sorted values start, and how many are in each."""
    edges = np.linspace(0, kept, min(GROUPS, kept) + 1).astype(np.int64)
    return edges[:-1], np.diff(edges)


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
    rest = whiten(windows(x, found, ranking.others), found.noise.phi)[:, ORDER:]
    halves = np.array(found.bank.halves)
    place, weight = found.at[:, None], weigh(found)
    fits = (place >= halves + ORDER) & (place <= len(x) - halves)
    gain = np.concatenate(
        [
            _gain(
                p,
                found.bank.designs[p.rows],
                rest.take(p.points, axis=1),
                weight.take(p.points, axis=1),
                nu,
                scale,
            )
            for p in packings(len(halves))
        ],
        axis=1,
    )
    best = np.sqrt(2 * np.max(gain, axis=1, where=fits, initial=0.0))
    return np.sign(ranking.T) * best, nu


def _gain(
    packing: Packing, designs: Array, data: Array, weight: Array, nu: float, scale: float
) -> Array:
    """Log-likelihood with the step minus without it, per row of data and filter. [k, f].

    designs [f, 5, 256], the step first; data, weight [k, m]. `ITERATIONS` of reweighted least
    squares, for all rows and filters at once, first with the step, then without; a column that
    is 0 stays out of the fit.
    """
    k, filters, c = len(data), len(designs), packing.columns
    columns, products, blank = _lay_out(packing, designs)
    # A residual e adds e^2: the log is the loss (less what is the same with and without the step),
    # the inverse the next weight (but for a factor).
    spread = (scale**2 * nu) / (weight * weight)
    off = np.empty((2, k, len(packing.points)))
    system, right = np.empty((2, k, filters, c, c)), np.empty((2, k, filters, c, 1))
    normal = np.zeros((2 * k, len(packing.left) + 2))
    normal[:, -1] = 1.0
    reweighted = 1.0 / spread[None]  # at first the same with the step and without
    for _ in range(ITERATIONS):
        flat = reweighted.reshape(-1, off.shape[2])
        sums = normal[: len(flat)]
        np.matmul(flat, products.T, out=sums[:, :-2])
        if len(blank):  # out of the fit: its own equation says 0
            sums[:, blank] = 1.0
        for part, of, place in zip(system, (sums[:k], sums[-k:]), packing.place, strict=True):
            of.take(place, axis=1, out=part, mode="clip")  # "raise" would copy once more
        target = np.multiply(reweighted, data, out=off[: len(reweighted)]).reshape(flat.shape)
        right[:] = (target @ columns.T).reshape(-1, *right.shape[1:])
        right[1, :, :, 0] = 0.0
        fit = np.linalg.solve(system, right).reshape(2 * k, -1)
        np.matmul(fit, columns, out=off.reshape(2 * k, -1))
        np.subtract(data, off, out=off)
        off *= off
        off += spread
        reweighted = 1.0 / off
    loss = np.add.reduceat(np.log(off, out=off), packing.starts, axis=2)
    return np.asarray((nu + 1) / 2 * (loss[1] - loss[0]), np.float64)


def _lay_out(packing: Packing, designs: Array) -> tuple[Array, Array, Points]:
    """Columns [fc, m] of the filters, products of their pairs [q, m], and which pairs are those
    of a column that is 0 with itself."""
    every = designs[:, : packing.columns].reshape(len(packing.mine), -1)
    columns = every.take(packing.points, axis=1) * packing.mine
    products = columns[packing.left] * columns[packing.right]
    # A little more on the diagonal, of each column's own power: smooth noise whitens the level to
    # next to nothing, and a wild point leaves every column little weight, yet they must be fitted.
    products[packing.own] *= 1.0 + 1e-12
    return columns, products, packing.own[~columns.any(axis=1)]
