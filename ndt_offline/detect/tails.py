"""Heavy tails: is a jump a step, or one wild innovation of persistent noise?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ndt_offline.detect.elimination import Ranking
from ndt_offline.detect.evidence import weigh, windows
from ndt_offline.detect.filters import CUBIC, HALVES
from ndt_offline.detect.noise import ORDER, whiten
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
    packing = _packing(len(found.bank.halves))
    rest = whiten(windows(x, found, ranking.others), found.noise.phi)[:, ORDER:]
    halves = np.array(found.bank.halves)
    place = found.at[:, None]
    fits = (place >= halves + ORDER) & (place <= len(x) - halves)
    weight = weigh(found)[:, packing.points] * fits[:, packing.owner]
    gain = _gain(packing, found.bank.designs, rest[:, packing.points], weight, nu, scale)
    best = np.sqrt(np.maximum(2 * gain.max(axis=1), 0.0))
    return np.sign(ranking.T) * best, nu


@dataclass(frozen=True)
class Packing:
    """The windows of w filters laid end to end, m points in all, with their c columns in use.

    points [m]: place in the widest window. owner [m]: number of the filter. column [c]: number of
    the column among 5 w. mine [c, m]: whether column and point are of one filter. left, right [q]:
    pairs of columns of one filter. pair [w, 5, 5]: number of the pair, q where there is none.
    """

    points: Points
    owner: Points
    column: Points
    mine: Array
    left: Points
    right: Points
    pair: Points


@cache
def _packing(w: int) -> Packing:
    widths = [2 * h for h in HALVES[:w]]
    points = np.concatenate([np.arange(HALVES[-1] - n // 2, HALVES[-1] + n // 2) for n in widths])
    owner = np.repeat(np.arange(w), widths)
    column = np.concatenate(
        [5 * row + np.arange(5 if h >= CUBIC else 3) for row, h in enumerate(HALVES[:w])]
    )
    same = np.equal.outer(column // 5, column // 5)
    left, right = np.nonzero(np.triu(same))
    pair = np.full((w * 5, w * 5), len(left))
    pair[column[left], column[right]] = pair[column[right], column[left]] = np.arange(len(left))
    blocks = np.stack([pair[5 * row : 5 * row + 5, 5 * row : 5 * row + 5] for row in range(w)])
    mine = (column[:, None] // 5 == owner).astype(np.float64)
    return Packing(points, owner, column, mine, left, right, blocks)


def _gain(
    packing: Packing, designs: Array, data: Array, weight: Array, nu: float, scale: float
) -> Array:
    """Log-likelihood with the step minus without it, per row of data and filter. [k, w].

    designs [w, 5, 256], the step first; data, weight [k, m]. `ITERATIONS` of reweighted least
    squares, for all rows and filters at once; a column that is 0 stays out of the fit.
    """
    k, w = len(data), len(designs)
    columns = designs.reshape(5 * w, -1)[packing.column[:, None], packing.points] * packing.mine
    products = np.zeros((len(packing.left) + 1, len(packing.points)))  # the last: no such pair
    np.multiply(columns[packing.left], columns[packing.right], out=products[:-1])
    used = np.ones((2 * k, w, 5))  # first with the step, then without
    used[k:, :, 0] = 0.0
    both = used[..., None] * used[..., None, :]
    data, square = np.concatenate([data, data]), np.concatenate([weight, weight]) ** 2
    reweighted, off = square, square
    right = np.zeros((2 * k, 5 * w))
    for _ in range(ITERATIONS):
        normal = (reweighted @ products.T)[:, packing.pair] * both
        right[:, packing.column] = (reweighted * data) @ columns.T
        fit = np.linalg.solve(_regular(normal), (right.reshape(used.shape) * used)[..., None])
        off = data - fit.reshape(2 * k, 5 * w)[:, packing.column] @ columns
        off = off * off * (square / scale**2)
        reweighted = square * ((nu + 1) / (nu + off))
    starts = np.flatnonzero(np.diff(packing.owner, prepend=-1))
    loss = (nu + 1) / 2 * np.add.reduceat(np.log1p(off / nu), starts, axis=1)
    return np.asarray(loss[k:] - loss[:k], np.float64)


def _regular(normal: Array) -> Array:
    """Normal equations [..., 5, 5] with a little on the diagonal, 1 where a column is 0.

    A little of each column's own power: smooth noise whitens the level to next to nothing, and
    a wild point leaves every column little weight, yet they must be fitted.
    """
    power = np.diagonal(normal, axis1=-2, axis2=-1)
    extra = np.where(power > 0, 1e-12 * power, 1.0)
    return np.asarray(normal + extra[..., None] * np.eye(5), np.float64)
