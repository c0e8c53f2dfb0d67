"""Several runs of one experiment: the test of coupling that needs no model of time at all."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndt_offline.errors import UsageError
from ndt_offline.relate.combine import benjamini_hochberg
from ndt_offline.relate.ranks import Floats, spearman

FEWEST_RUNS = 5
MOST_ORDERS = 5040


@dataclass(frozen=True)
class PooledCoupling:
    """One series against one target over all runs.

    rho, lowest, highest    pooled rho of the levels within runs; its extremes over the runs
    rho_beyond              pooled rho of what is each run's own: levels minus the mean of all runs
    p, q                    permutation test of rho_beyond; Benjamini-Hochberg over the call
    """

    series: int
    target: int
    runs: int
    n: int
    rho: float
    lowest: float
    highest: float
    rho_beyond: float
    p: float
    q: float


def across_runs(series: ArrayLike, targets: ArrayLike, *, seed: int = 0) -> list[PooledCoupling]:
    """Series [runs, k, n] against targets [runs, t, n] of five or more runs: k*t records.

    Runs share architecture, data and schedule and differ in their seed. If series and target had
    nothing in common but the clock, run 1's series would fit run 2's target as well as its own:
    p is the share of pairings of runs whose mean rho is at least as far from the mean of all
    pairings as the true one. All pairings up to 7 runs (5 runs: p >= 1/120), else 5040 drawn ones,
    the true one among them. Steps must be the same in all runs; a sample missing in one run is
    left out of all. Raises UsageError for fewer than five runs.
    """
    x, y = _runs(series, "series"), _runs(targets, "targets")
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise UsageError(f"series of shape {x.shape} and targets of shape {y.shape} do not fit")
    orders = _orders(x.shape[0], seed)
    rows = [_pair(x[:, i], y[:, j], orders) for i in range(x.shape[1]) for j in range(y.shape[1])]
    q = benjamini_hochberg(np.array([row[-1] for row in rows]))
    t = y.shape[1]
    return [
        PooledCoupling(i // t, i % t, x.shape[0], *row, q=float(q[i])) for i, row in enumerate(rows)
    ]


def pooled(rho: Floats) -> float:
    """Mean of correlations through Fisher's transform: tanh(mean artanh rho)."""
    return float(np.tanh(np.mean(np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15)))))


def _runs(values: ArrayLike, name: str) -> Floats:
    runs = np.asarray(values, dtype=np.float64)
    if runs.ndim != 3:
        raise UsageError(f"{name} must be an array [runs, rows, samples], not {runs.shape}")
    if len(runs) < FEWEST_RUNS:
        raise UsageError(
            f"{len(runs)} runs are too few to be permuted",
            remedy=f"give at least {FEWEST_RUNS} runs that differ in their seed",
        )
    return runs


def _orders(runs: int, seed: int) -> NDArray[np.intp]:
    """Pairings [orders, runs], the true one first."""
    if factorial(runs) <= MOST_ORDERS:
        return np.array(list(permutations(range(runs))))
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(np.arange(runs), (MOST_ORDERS - 1, 1)), axis=1)
    return np.vstack([np.arange(runs), drawn])


def _pair(
    x: Floats, y: Floats, orders: NDArray[np.intp]
) -> tuple[int, float, float, float, float, float]:
    keep = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    x, y, n = x[:, keep], y[:, keep], int(keep.sum())
    flat = n < 3 or (np.ptp(x, axis=1) == 0).any() or (np.ptp(y, axis=1) == 0).any()
    if flat:
        return n, np.nan, np.nan, np.nan, np.nan, np.nan
    own = np.diag(spearman(x, y))
    crossed = spearman(x - x.mean(axis=0), y - y.mean(axis=0))
    means = crossed[np.arange(len(x)), orders].mean(axis=1)
    away = np.abs(means - crossed.mean())
    p = float(np.mean(away >= away[0] - 1e-12))
    return n, pooled(own), float(own.min()), float(own.max()), pooled(np.diag(crossed)), p
