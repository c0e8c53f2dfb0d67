"""Simultaneous bands of healthy runs: does a new run leave them anywhere, at any step?

From n runs of k series over t steps, on the scale y = log(value): the centre m is the mean over
runs, the spread s the standard deviation over runs, its variance averaged over neighbouring steps
(few runs know it badly at one step) and kept above a tenth of its median over the series. A run's
score is its worst deviation anywhere,

    D = max over series and steps of |y - m| / s,

and the score of each healthy run is taken against the band of the others. A new run leaves the
band where its deviation exceeds the critical value c: the ceil((1 - alarm)(n + 1))-th smallest of
the healthy scores. If runs are exchangeable, a healthy one should do so with a probability of at
most `alarm`, over all series and all steps together, on average over baselines: of one given
baseline of ten it can be .26 (its rate is about Beta(1, 10)). It is not a theorem: the healthy
scores are against bands of n - 1 runs, the new one's against n (the plain jackknife, which has no
guarantee: Barber, Candes, Ramdas and Tibshirani 2021); it was at or below the rate in all
simulations (n = 3: .04 to .11 where .25 is stated, 5: .05 to .15 for .167, 10: 0 to .09 for .091,
19: 0 to .095 for .100). Looking again while a run grows does not change that, as long as the
baseline is the same: the largest deviation so far only grows towards D.

What it is not: n runs cannot state a rate below 1 / (n + 1); `rate` says what was reached. A run
with other settings is not exchangeable with these, and leaving the band does not say that it is
worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

FEWEST = 3  # runs: with two, the band of the others would be a single run
WINDOW = 40  # one part in so many of the steps is averaged to each side for the variance
FLOOR = 0.1  # of a series' median spread
TINY = 1e-9  # of a logarithm: spread where all runs agree exactly


@dataclass(frozen=True)
class Band:
    """Centre and spread of log values [series, step], the critical deviation, its rate, runs."""

    centre: np.ndarray
    spread: np.ndarray
    critical: float
    rate: float
    runs: int

    @property
    def low(self) -> np.ndarray:
        """Lower edge, on the scale of the values: [series, step]."""
        return np.exp(self.centre - self.critical * self.spread)

    @property
    def high(self) -> np.ndarray:
        return np.exp(self.centre + self.critical * self.spread)


def fit_band(values: np.ndarray, alarm: float = 0.1) -> Band:
    """The band of healthy runs. values: positive, [run, series, step]; alarm: in (0, 1).

    A series' step at which any run has no finite value is left out of the comparison. Raises
    ValueError for fewer than three runs.
    """
    n = len(values)
    if n < FEWEST:
        raise ValueError(f"{n} runs make no band: {FEWEST} are needed")
    logs = _logs(values)
    scores = []
    for i in range(n):
        centre, spread = _middle(np.delete(logs, i, axis=0))
        scores.append(_worst(deviations(centre, spread, logs[i])))
    rank = min(ceil((1 - alarm) * (n + 1) - 1e-9), n)
    centre, spread = _middle(logs)
    return Band(centre, spread, float(np.sort(scores)[rank - 1]), 1 - rank / (n + 1), n)


def stated_rate(runs: int, alarm: float = 0.1) -> float:
    """The rate of false alarms that a band of that many runs keeps; what it reaches is `rate`."""
    return max(alarm, 1 / (runs + 1))


def outside(band: Band, values: np.ndarray) -> np.ndarray:
    """Signed deviations of a run [series, step], in units of the spread; inf where it has none.

    A value is outside the band where the deviation exceeds `band.critical` in size.
    """
    return deviations(band.centre, band.spread, _logs(values))


def deviations(centre: np.ndarray, spread: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """(log - centre) / spread: 0 where there is no band, inf where the run alone has no value."""
    with np.errstate(invalid="ignore"):
        found = (logs - centre) / spread
    found = np.where(np.isnan(logs), np.inf, found)
    return np.where(np.isnan(centre), 0.0, found)


def _logs(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            np.isfinite(values), np.log(np.maximum(values, np.finfo(float).tiny)), np.nan
        )


def _middle(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and spread over runs: [series, step] each."""
    centre = logs.mean(axis=0)
    variance = _smoothed(logs.var(axis=0, ddof=1))
    spread = np.sqrt(variance)
    with np.errstate(invalid="ignore"):
        floor = FLOOR * np.nanmedian(np.where(np.isnan(spread), 0.0, spread), axis=1, keepdims=True)
        return centre, np.maximum(spread, np.maximum(floor, TINY))


def _smoothed(variance: np.ndarray) -> np.ndarray:
    """Mean over neighbouring steps that are known: [series, step]."""
    steps = variance.shape[1]
    reach = max(1, steps // WINDOW)
    known = ~np.isnan(variance)
    sums = np.cumsum(np.pad(np.where(known, variance, 0.0), ((0, 0), (1, 0))), axis=1)
    counts = np.cumsum(np.pad(known, ((0, 0), (1, 0))).astype(np.int64), axis=1)
    low = np.maximum(np.arange(steps) - reach, 0)
    high = np.minimum(np.arange(steps) + reach + 1, steps)
    count = counts[:, high] - counts[:, low]
    return (sums[:, high] - sums[:, low]) / np.maximum(count, 1)


def _worst(found: np.ndarray) -> float:
    return float(np.abs(found).max(initial=0.0))
