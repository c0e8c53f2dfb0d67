"""Many p-values: one for a pair, and a rate of false discoveries for a run."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.ranks import Floats


def simes(parts: Floats) -> Floats:
    """Simes (1986) over the last axis: min_i p_(i) * m / i of the m ordered p.

    Valid for independent and for positively dependent parts. NaN parts are left out; where all
    are NaN so is the result.
    """
    ordered = np.sort(parts, axis=-1)  # NaN last
    m = np.sum(~np.isnan(ordered), axis=-1, keepdims=True)
    ratio = ordered * m / np.arange(1, parts.shape[-1] + 1)
    smallest = np.where(np.isnan(ratio), np.inf, ratio).min(axis=-1)
    return np.where(m[..., 0] > 0, np.minimum(smallest, 1.0), np.nan)


def benjamini_hochberg(p: Floats) -> Floats:
    """q of every p, any shape: the smallest false discovery rate at which it would be reported.

    q_(i) = min_{j >= i} p_(j) * m / j over the m finite p (Benjamini and Hochberg 1995).
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    q = np.full(flat.shape, np.nan)
    finite = np.flatnonzero(~np.isnan(flat))
    order = finite[np.argsort(flat[finite])]
    m = len(order)
    ratio = flat[order] * m / np.arange(1, m + 1)
    q[order] = np.minimum(np.minimum.accumulate(ratio[::-1])[::-1], 1.0)
    return q.reshape(np.shape(p))
