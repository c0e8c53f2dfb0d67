"""Continuous piecewise-linear curves: the best breakpoints by exhaustive search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.bins import FINE, SHORTEST, Bins
from ndt_offline.relate.ranks import Floats

Weights = tuple[Floats, Floats, Floats]
FEW = 8


@dataclass(frozen=True)
class Curves:
    """D fitted curves: knots [D, m + 1] in t (first, breakpoints, last), values there, rss [D]."""

    knots: Floats
    values: Floats
    rss: Floats

    def at(self, t: Floats) -> Floats:
        """The curves at t [n]: [D, n]."""
        slopes = np.diff(self.values, axis=1) / np.diff(self.knots, axis=1)
        curve = self.values[:, :1] + slopes[:, :1] * (t - self.knots[:, :1])
        for knot in range(1, slopes.shape[1]):
            bend = slopes[:, knot] - slopes[:, knot - 1]
            curve = curve + bend[:, None] * np.maximum(t - self.knots[:, knot : knot + 1], 0)
        return curve


@dataclass(frozen=True)
class Search:
    """What every fit on the same bins and the same noise shares.

    whiten [B, B]: bin means times this have covariance 1. base [2, B]: orthonormal rows spanning
    the straight lines; line [2, 2] turns its coefficients into (value at t = 0, slope).
    hinges [F, B] of the places of the bins, whitened; columns [F, B]: with straight lines taken
    out; gram [F, F] of the columns; pairs [2, P] of edges that are looked at first.
    """

    bins: Bins
    whiten: Floats
    base: Floats
    line: Floats
    hinges: Floats
    columns: Floats
    gram: Floats
    pairs: NDArray[np.intp]


def prepare(bins: Bins, covariance: Floats) -> Search:
    """The search on `bins` under noise with this covariance [B, B] of the bin means."""
    lower = np.linalg.cholesky(covariance + 1e-10 * np.diag(np.diag(covariance)))
    whiten = np.linalg.inv(lower).T
    straight = np.stack([np.ones(len(bins.centres)), bins.centres]) @ whiten
    q, r = np.linalg.qr(straight.T)
    hinges = bins.hinges @ whiten
    columns = hinges - (hinges @ q) @ q.T
    coarse = np.arange(0, len(bins.places), FINE)
    pairs = coarse[np.stack(np.triu_indices(len(coarse), SHORTEST))]
    return Search(bins, whiten, q.T, np.linalg.inv(r), hinges, columns, columns @ columns.T, pairs)


def fit_curves(search: Search, means: Floats, phases: int) -> Curves:
    """The best curve of 1, 2 or 3 phases through each row of bin means [D, B]."""
    white = means @ search.whiten
    part = white @ search.base.T
    rest = white - part @ search.base
    rss = np.einsum("db,db->d", rest, rest)
    cross = rest @ search.columns.T
    chosen = np.zeros((len(means), 0), dtype=np.intp)
    bends = np.zeros((len(means), 0))
    if phases == 2:
        chosen, bends, gain = _one_break(search, cross)
    elif phases == 3:
        chosen, bends, gain = _two_breaks(search, cross)
    if phases > 1:
        rss = np.maximum(rss - gain, 0.0)
        for b in range(phases - 1):
            hinge = search.hinges[chosen[:, b]]
            part = part - bends[:, b : b + 1] * (hinge @ search.base.T)
    return _curves(search, part @ search.line.T, search.bins.places[chosen], bends, rss)


def _curves(search: Search, line: Floats, breaks: Floats, bends: Floats, rss: Floats) -> Curves:
    t = search.bins.t
    ends = np.broadcast_to([[t[0], t[-1]]], (len(line), 2))
    knots = np.hstack([ends[:, :1], breaks, ends[:, 1:]])
    values = line[:, :1] + line[:, 1:] * knots
    for b in range(breaks.shape[1]):
        values = values + bends[:, b : b + 1] * np.maximum(knots - breaks[:, b : b + 1], 0)
    return Curves(knots, values, rss)


def _one_break(search: Search, cross: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    power = np.diag(search.gram)
    gain = cross**2 / power
    best = np.argmax(gain, axis=1)[:, None]
    pick = np.take_along_axis
    return best, pick(cross, best, 1) / power[best], pick(gain, best, 1)[:, 0]


def _two_breaks(search: Search, cross: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    i, j = search.pairs
    best = _best_pairs(search, cross)
    near = np.arange(1 - FINE, FINE)
    last, apart = len(search.bins.places) - 1, SHORTEST * FINE
    first = np.clip(i[best][:, None] + np.repeat(near, len(near)), 0, last)
    second = np.clip(j[best][:, None] + np.tile(near, len(near)), 0, last)
    rows = np.arange(len(cross))
    pick = rows[:, None]
    # Clipped to one place, or too close, a pair is no curve of three phases.
    apart_enough = second - first >= apart
    second = np.where(apart_enough, second, j[best][:, None])
    first = np.where(apart_enough, first, i[best][:, None])
    gain = _gain(_weights(search.gram, first, second), cross[pick, first], cross[pick, second])
    best = np.argmax(gain, axis=1)
    i, j = first[rows, best], second[rows, best]
    a, b, c = search.gram[i, i], search.gram[i, j], search.gram[j, j]
    x, y = cross[rows, i], cross[rows, j]
    bends = np.stack([c * x - b * y, a * y - b * x], axis=1) / (a * c - b * b)[:, None]
    return np.stack([i, j], axis=1), bends, gain[rows, best]


def _best_pairs(search: Search, cross: Floats) -> NDArray[np.intp]:
    """Place in `search.pairs` of the best pair of edges for each row of `cross` [D, F]: [D]."""
    i, j = search.pairs
    weights = _weights(search.gram, i, j)
    best = np.empty(len(cross), dtype=np.intp)
    # A few rows at a time stay in the cache; all of them at once cost more to allocate than to use.
    for start in range(0, len(cross), FEW):
        few = cross[start : start + FEW]
        best[start : start + FEW] = np.argmax(_gain(weights, few[:, i], few[:, j]), axis=1)
    return best


def _weights(gram: Floats, i: NDArray[np.intp], j: NDArray[np.intp]) -> Weights:
    a, b, c = gram[i, i], gram[i, j], gram[j, j]
    scale = 1 / (a * c - b * b)
    return c * scale, 2 * b * scale, a * scale


def _gain(weights: Weights, x: Floats, y: Floats) -> Floats:
    """Drop of the residual sum of squares for two hinges together, from their products x, y."""
    first, both, second = weights
    gain = first * x
    gain -= both * y
    gain *= x
    gain += second * y * y
    return gain
