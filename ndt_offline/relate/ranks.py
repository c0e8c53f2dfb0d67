"""Ranks of many series at once, and Spearman's rho as one matrix product."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rank_rows(values: Floats) -> Floats:
    """Ranks 1..n of each row of `values` [k, n]; equal values share their mean rank.

    The values must be finite: where a NaN ranks is a decision of the caller.
    """
    order = np.argsort(values, axis=1)
    ascending = np.take_along_axis(values, order, axis=1)
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, _sorted_ranks(ascending), axis=1)
    return ranks


def _sorted_ranks(ascending: Floats) -> Floats:
    k, n = ascending.shape
    plain = np.broadcast_to(np.arange(1.0, n + 1.0), (k, n))
    starts = np.ones((k, n), dtype=bool)
    np.not_equal(ascending[:, 1:], ascending[:, :-1], out=starts[:, 1:])
    if starts.all():
        return plain
    # All rows as one run-length coding: a row always starts a new run.
    first = np.flatnonzero(starts)
    length = np.diff(np.append(first, k * n))
    mean = first % n + 1.0 + (length - 1) / 2.0
    return np.repeat(mean, length).reshape(k, n)


def unit_rows(values: Floats) -> Floats:
    """Each row [k, n] minus its mean, divided by its length: the dot product is the correlation.

    A row without any variation becomes NaN.
    """
    centred = values - values.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("kn,kn->k", centred, centred))[:, None]
    flat = np.ptp(values, axis=1)[:, None] == 0 if values.shape[1] else norm == 0
    return np.divide(centred, norm, out=np.full_like(centred, np.nan), where=~flat & (norm > 0))


def unit_ranks(values: Floats) -> Floats:
    """`unit_rows` of `rank_rows`: for [k, n] and [t, n], `a @ b.T` is Spearman's rho [k, t]."""
    return unit_rows(rank_rows(values))


def spearman(series: Floats, targets: Floats) -> Floats:
    """Spearman's rho of every series [k, n] with every target [t, n]: [k, t], in [-1, 1].

    rho is Pearson's correlation of the mean ranks (Spearman 1904), so ties need no correction.
    NaN where a series or target is constant. It is a description; its textbook p-value assumes
    independent samples, which a training curve never has.
    """
    return np.clip(unit_ranks(series) @ unit_ranks(targets).T, -1.0, 1.0)


def share_of_ties(values: Floats) -> Floats:
    """Share of samples of each row [k, n] whose value occurs more than once: [k]."""
    ascending = np.sort(values, axis=1)
    same = ascending[:, 1:] == ascending[:, :-1]
    tied = np.zeros(values.shape, dtype=bool)
    tied[:, 1:] |= same
    tied[:, :-1] |= same
    return tied.mean(axis=1)
