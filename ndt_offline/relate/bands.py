"""Bands of healthy runs: whether another run is one more of them, over all series and steps.

Each run is compared with all others. Its deviation at a point is |x - m| / (s sqrt(1 + 1/n)), with
mean m and standard deviation s of the n others; s^2 is shrunk towards its mean over the steps of
the series, because n is small. Its distance is the largest deviation anywhere.

Were the new run exchangeable with n healthy ones, its distance would have any rank among n + 1
with the same probability: "further out than all of them" happens at a rate of 1 / (n + 1) at most,
whatever the series' distributions, trends and correlations (full conformal prediction; Vovk,
Gammerman and Shafer 2005). Smaller rates need more runs. It is no test of single points: where
the run leaves the band is told, not tested again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError

Array = npt.NDArray[np.float64]

FEWEST = 4  # healthy runs
PRIOR = 4.0  # degrees of freedom that the mean variance of a series counts for
ROUNDING = 1e-6  # of a value: a smaller spread is none


@dataclass(frozen=True)
class Departure:
    """How a run stands to healthy ones.

    p         share of the n + 1 runs whose distance is at least its own
    distance  its largest deviation; limit: the largest of a healthy run among all n + 1
    band      the largest of a healthy run among the healthy: the width of their band
    deviation [series, step] of the new run
    """

    p: float
    distance: float
    limit: float
    band: float
    deviation: Array

    @property
    def left(self) -> bool:
        """Whether it is further out than every healthy run: by chance at a rate of 1 / (n + 1)."""
        return self.distance > self.limit

    @property
    def outside(self) -> npt.NDArray[np.bool_]:
        """Where it leaves the band, its furthest point included: [series, step].

        The band is that of the healthy runs alone: one that lies far out would widen the spread
        which theirs are measured by, and seem to have left it everywhere.
        """
        furthest = self.left & (self.deviation == self.distance)
        outside: npt.NDArray[np.bool_] = (self.deviation > self.band) & self.left | furthest
        return outside


def departure(healthy: Array, new: Array) -> Departure:
    """Compare a run [series, step] with healthy ones [run, series, step].

    A value that is not finite where those of others are is infinitely far out; where no other
    run has a finite one, nothing is compared.
    """
    if healthy.ndim != 3 or healthy.shape[1:] != new.shape:
        raise UsageError(f"runs of shape {new.shape} and {healthy.shape[1:]} cannot be compared")
    if len(healthy) < FEWEST:
        raise UsageError(f"{len(healthy)} healthy runs; at least {FEWEST} make a band")
    moments, own = _Moments(np.concatenate([healthy, new[None]])), _Moments(healthy)
    count = len(healthy)
    deviation = moments.deviation(count)
    distance = _largest(deviation)
    distances = [_largest(moments.deviation(index)) for index in range(count)]
    rank = 1 + sum(other >= distance for other in distances)
    band = max(_largest(own.deviation(index)) for index in range(count))
    return Departure(rank / (count + 1), distance, max(distances), band, deviation)


def _largest(deviation: Array) -> float:
    return float(deviation.max(initial=0.0))


class _Moments:
    """Sums over runs, from which those without one run follow."""

    def __init__(self, runs: Array) -> None:
        self._finite = np.isfinite(runs)
        # About one origin for all runs, so that squares lose no digits: the same whoever is new.
        origin = np.where(self._finite, runs, 0.0).sum(0) / np.maximum(self._finite.sum(0), 1)
        self._origin = np.abs(origin)
        self._runs = np.where(self._finite, runs - origin, 0.0)

    def deviation(self, index: int) -> Array:
        """|x - m| / (s sqrt(1 + 1/n)) of one run against the others: [series, step]."""
        keep = np.arange(len(self._runs)) != index
        others, finite = self._runs[keep], self._finite[keep]
        count = finite.sum(0)
        mean = others.sum(0) / np.maximum(count, 1)
        square = (np.where(finite, others - mean, 0.0) ** 2).sum(0)
        freedom = np.maximum(count - 1, 0)
        known = np.maximum(freedom.sum(-1, keepdims=True), 1)
        typical = square.sum(-1, keepdims=True) / known
        variance = (square + PRIOR * typical) / (freedom + PRIOR)
        least = ROUNDING * np.maximum(self._origin, np.finfo(np.float64).tiny)
        scale = np.maximum(np.sqrt(variance * (1 + 1 / np.maximum(count, 1))), least)
        far = np.abs(self._runs[index] - mean) / scale
        far = np.where(np.abs(self._runs[index] - mean) <= least, 0.0, far)
        comparable = count >= 2
        return np.where(comparable, np.where(self._finite[index], far, np.inf), 0.0)
