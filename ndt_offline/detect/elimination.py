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
    inverse, fit, covariance = _joint(found)
    for _ in range(k):
        error = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
        strength = np.where(active, np.abs(fit) / np.maximum(error, 1e-300), np.inf)
        weakest = int(strength.argmin())
        highest = max(highest, float(strength[weakest]))
        if not stated:
            stated = highest >= REFERENCE
            say = np.flatnonzero(active) if stated else np.array([weakest])
            sizes[say], errors[say] = fit[say], np.maximum(error[say], 1e-300)
            others[say] = fit
            others[say, say] = 0.0
        drops_out[weakest] = highest
        active[weakest] = False
        inverse, fit, covariance = _drop(weakest, inverse, fit, covariance)
    return Ranking(drops_out, sizes, errors, others)


def _joint(found: Search) -> tuple[Array, Array, Array]:
    """Inverse of the mixing, sizes of all candidates, and their covariance. [k, k], [k], [k, k]."""
    inverse = np.asarray(np.linalg.inv(found.mixing), np.float64)
    return inverse, inverse @ found.outputs, inverse @ found.covariance @ inverse.T


def _drop(j: int, inverse: Array, fit: Array, covariance: Array) -> tuple[Array, Array, Array]:
    """The same without candidate j: the inverse of what is left, its row and column j now 0.

    With B the inverse, that of the mixing without row and column j is P B, where P takes from
    every row B_ij / B_jj times row j; so the sizes are P fit and their covariance P C P'.
    """
    take = inverse[:, j] / inverse[j, j]
    inverse = inverse - np.outer(take, inverse[j])
    covariance = covariance - np.outer(take, covariance[j])
    covariance = covariance - np.outer(covariance[:, j], take)
    return inverse, fit - take * fit[j], covariance
