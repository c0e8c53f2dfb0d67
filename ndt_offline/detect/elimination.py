"""Backward elimination: which candidates stand when all are estimated together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ndt_offline.detect.pursuit import Search
from ndt_offline.detect.transition import Array

REFERENCE = 4.7  # the threshold at whose fit sizes and T are stated


@dataclass(frozen=True)
class Ranking:
    """The elimination path of k candidates, written so that every threshold can be read off it.

    drops_out [k]: running maximum, along the path, of the smallest |T|. The candidates with
    drops_out >= threshold are exactly those that an elimination at that threshold keeps.
    sizes, errors [k]: in the joint fit at the moment a candidate was dropped, or at `REFERENCE`
    for those that outlast it. others [k, k]: sizes of the other candidates in that same fit.
    """

    drops_out: Array
    sizes: Array
    errors: Array
    others: Array

    @property
    def T(self) -> Array:
        return self.sizes / self.errors


def eliminate(found: Search) -> Ranking:
    """Refit all candidates jointly, drop the weakest, repeat until none is left."""
    k = len(found.at)
    drops_out, sizes, errors = np.zeros(k), np.zeros(k), np.ones(k)
    others = np.zeros((k, k))
    active = np.ones(k, bool)
    stated = False
    highest = 0.0
    joint = _joint(found)
    fit, variance = joint[:, 2 * k], np.diagonal(joint[:, k : 2 * k])  # views: they keep up
    for _ in range(k):
        error = np.maximum(np.sqrt(np.maximum(variance, 0.0)), 1e-300)
        strength = np.where(active, np.abs(fit) / error, np.inf)
        weakest = int(strength.argmin())
        highest = max(highest, float(strength[weakest]))
        if not stated:
            stated = highest >= REFERENCE
            say = np.flatnonzero(active) if stated else slice(weakest, weakest + 1)
            sizes[say], errors[say] = fit[say], error[say]
            others[say] = fit
        drops_out[weakest] = highest
        active[weakest] = False
        _drop(weakest, joint)
    np.fill_diagonal(others, 0.0)
    return Ranking(drops_out, sizes, errors, others)


def _joint(found: Search) -> Array:
    """Side by side: inverse of the mixing, covariance of all sizes, sizes. [k, k + k + 1]."""
    inverse = np.asarray(np.linalg.inv(found.mixing), np.float64)
    covariance = inverse @ found.covariance @ inverse.T
    return np.concatenate([inverse, covariance, (inverse @ found.outputs)[:, None]], axis=1)


def _drop(j: int, joint: Array) -> None:
    """The same without candidate j, in place: of the inverse row and column j are now 0.

    With B the inverse, that of the mixing without row and column j is P B, where P takes from
    every row B_ij / B_jj times row j; so the sizes are P fit and their covariance P C P'.
    """
    k = len(joint)
    take = joint[:, j] / joint[j, j]
    joint -= take[:, None] * joint[j]
    covariance = joint[:, k : 2 * k]
    covariance -= covariance[:, j : j + 1] * take
