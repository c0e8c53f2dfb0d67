"""The `baseline` detector: a sliding mean that leaves the range of an initial window and stays."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.transition import Array, Steps, Transition
from ndt_offline.errors import UsageError


def find_onsets(
    values: Array,
    steps: Steps,
    threshold: float = 3.0,
    initial: int = 50,
    window: int = 50,
    persistence: int = 10,
) -> list[Transition]:
    """Where the mean of the last `window` points leaves mean +- threshold * SD of the first
    `initial` points, on one side, for at least `persistence` points in a row.

    The protocol of studies of phase transitions in training. The step reported is the onset, the
    first of those points, not the one that confirmed it; the sliding mean itself lags by half its
    window, so expect the report 25 to 40 points after an abrupt step. size is how far the sliding
    mean is from the baseline when it is confirmed. Anything that trends leaves its baseline: this
    says that a series moved, not that it jumped. Points that are not finite are left out.
    """
    if min(initial, window, persistence) < 1 or initial < 2:
        raise UsageError("initial must be at least 2, window and persistence at least 1")
    kept = np.flatnonzero(np.isfinite(values))
    x = values[kept]
    if len(x) < initial + window + persistence:
        return []
    mean, spread = x[:initial].mean(), x[:initial].std(ddof=1)
    sliding = np.convolve(x - mean, np.full(window, 1.0 / window), "valid")[initial:]
    first = initial + window - 1  # the first mean whose window lies after the baseline
    outside = np.abs(sliding) > threshold * spread
    found = []
    for a, b in _excursions(np.where(outside, np.sign(sliding), 0.0), persistence):
        i = int(kept[first + a])
        reach = float(np.abs(sliding[a:b]).max() / spread) if spread > 0 else np.inf
        confirmed = float(sliding[a + persistence - 1])
        found.append(Transition(i, steps[i].item(), confirmed, T=reach))
    return found


def _excursions(side: Array, persistence: int) -> list[tuple[int, int]]:
    """Runs of one sign of at least so many points; the next needs as many points at 0, or on the
    other side, before it. Start and end of each."""
    found: list[tuple[int, int]] = []
    sign, calm = 0.0, 0
    for a, b in _runs(side):
        if side[a] == sign:
            calm = 0
            continue
        calm += b - a
        if side[a] == 0 and calm >= persistence:
            sign = 0.0
        if side[a] != 0 and b - a >= persistence:
            found.append((a, b))
            sign, calm = float(side[a]), 0
    return found


def _runs(side: Array) -> list[tuple[int, int]]:
    """Start and end of every run of equal values."""
    edges = np.flatnonzero(np.diff(side)) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(side)], strict=True))
