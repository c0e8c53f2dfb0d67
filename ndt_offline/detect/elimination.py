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
    active = np.arange(k)
    stated = np.zeros(k, bool)
    highest = 0.0
    while len(active):
        fit, error = _joint(found, active)
        strength = np.abs(fit) / error
        weakest = int(strength.argmin())
        highest = max(highest, float(strength[weakest]))
        say = active if highest >= REFERENCE else active[weakest : weakest + 1]
        if not stated[say[0]]:
            chosen = np.isin(active, say)
            sizes[say], errors[say] = fit[chosen], error[chosen]
            others[np.ix_(say, active)] = fit
            others[say, say] = 0.0
            stated[say] = True
        drops_out[active[weakest]] = highest
        active = np.delete(active, weakest)
    return Ranking(drops_out, sizes, errors, others)


def _joint(found: Search, active: np.ndarray) -> tuple[Array, Array]:
    """Sizes of the active candidates and their standard errors. [m], [m]."""
    pairs = np.ix_(active, active)
    inverse = np.linalg.inv(found.mixing[pairs])
    error = np.sqrt(((inverse @ found.covariance[pairs]) * inverse).sum(axis=1))
    return inverse @ found.outputs[active], np.maximum(error, 1e-300)
