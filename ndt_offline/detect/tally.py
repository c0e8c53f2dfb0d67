"""Counts of transitions beside counts on matched noise, for any thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.gls import GAUSSIAN, TAILS
from ndt_offline.detect.peaks import Peaks, Table, threshold_of
from ndt_offline.detect.transition import Array

NORMAL = 1.6449
MANY = 2.0  # times the observed count: matched noise this far above it deserves a warning


@dataclass(frozen=True)
class Counts:
    """Transitions per group of series and threshold, and what matched noise gives.

    thresholds [t]; observed [g, t]; matched [g, t]: mean per draw; low, high [g, t]: nominal 90 %
    range of the count in one more draw of noise; draws: of each series. NaN without draws.
    """

    thresholds: Array
    observed: NDArray[np.int64]
    matched: Array
    low: Array
    high: Array
    draws: int

    @property
    def warnings(self) -> NDArray[np.bool_]:
        """Where matched noise shows far more than the series: the noise model does not fit it.

        Very smooth series do this. Their counts say nothing either way. [g, t].
        """
        return (self.low > self.observed) & (self.matched > MANY * self.observed)


def counts(
    peaks: Peaks,
    thresholds: float | Sequence[float] | Array | None = None,
    groups: Any = None,
) -> Counts:
    """Observed and matched counts at many thresholds, from the stored columns alone.

    `groups` [series] numbers the group of each series (a layer, say) from 0; default: all in one.
    The matched count of a group is over its series, per draw; its range allows for the spread
    between draws, at least Poisson.
    """
    if thresholds is None or np.ndim(thresholds) == 0:
        levels = np.array([threshold_of(peaks, thresholds)])  # type: ignore[arg-type]
    else:
        levels = np.array([threshold_of(peaks, t) for t in thresholds])  # type: ignore[union-attr]
    many = len(peaks.series["status"])
    group = np.zeros(many, np.int64) if groups is None else np.asarray(groups, np.int64)
    size = int(group.max(initial=0)) + 1
    observed = _above(peaks, peaks.found, levels, group[peaks.found["series"]], size)
    draws = int(peaks.series["draws"].max(initial=0))
    key = group[peaks.matched["series"]] * draws + peaks.matched["draw"]
    each = _above(peaks, peaks.matched, levels, key, size * draws).reshape(size, draws, len(levels))
    matched, low, high = range_of(each)
    return Counts(levels, observed, matched, low, high, draws)


def _above(
    peaks: Peaks, table: Table, levels: Array, key: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """How many rows of each key stand at each level. [size, levels]."""
    rows = np.ones(len(key), bool)
    if peaks.detector == "steps":
        heavy = table["nu"] < GAUSSIAN
        rows = ~heavy | (np.abs(table["Tt"]) >= peaks.params.get("tails", TAILS))
    order = np.argsort(levels, kind="stable")
    side: Literal["left", "right"] = "left" if peaks.detector == "zscore" else "right"
    # Row j stands at the first `passed` of the ascending levels.
    passed = np.searchsorted(levels[order], table["drops_out"][rows], side=side)
    flat = np.bincount(key[rows] * (len(levels) + 1) + passed, minlength=size * (len(levels) + 1))
    stands = flat.reshape(size, len(levels) + 1)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    out = np.empty_like(stands)
    out[:, order] = stands
    return out


def range_of(each: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Mean over draws and the range of one more draw. [g, draws, t] -> three of [g, t]."""
    draws = each.shape[1]
    if draws == 0:
        nothing = np.full((each.shape[0], each.shape[2]), np.nan)
        return nothing, nothing, nothing
    mean = each.mean(axis=1)
    variance = each.var(axis=1, ddof=1) if draws > 1 else mean
    spread = np.sqrt(np.maximum(variance, mean + 0.5 / draws) * (1 + 1 / draws))
    return mean, np.maximum(mean - NORMAL * spread, 0.0), mean + NORMAL * spread
