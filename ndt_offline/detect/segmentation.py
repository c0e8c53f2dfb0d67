"""The `segments` detector: regimes of constant mean in a prewhitened series, by PELT."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ndt_offline.detect.noise import MAD, running_median
from ndt_offline.detect.transition import Array, Steps, Transition
from ndt_offline.errors import UsageError

TREND = 51
LARGEST = 0.99


def find_segments(
    values: Array, steps: Steps, penalty: float = 4.0, shortest: int = 5
) -> list[Transition]:
    """Borders between regimes: the optimal partition of the prewhitened series.

    Minimises sum of squares within segments + penalty * s^2 * log(n) per border, segments of at
    least `shortest` points, over all partitions (PELT: Killick, Fearnhead and Eckley 2012). The
    series is prewhitened by a robust AR(1); s is the MAD of its differences over sqrt(2). size is
    the difference of the segments' means in the series itself.

    For regimes rather than jumps: the prewhitening that keeps it quiet on persistent noise also
    hides abrupt steps in it (recall near 0 at AR .9), and drifts are cut into stairs. Points
    that are not finite are left out.
    """
    if shortest < 1 or penalty < 0:
        raise UsageError("shortest must be at least 1 and penalty not negative")
    kept = np.flatnonzero(np.isfinite(values))
    x = values[kept]
    if len(x) < 2 * shortest + 1:
        return []
    unit = float(np.abs(x - x.mean()).max()) or 1.0
    white = prewhiten((x - x.mean()) / unit)
    s2 = (MAD * float(np.median(np.abs(np.diff(white))))) ** 2 / 2
    if s2 == 0.0:
        s2 = max(float(np.var(np.diff(white))) / 2, 1e-300)
    borders = [b + 1 for b in pelt(white, penalty * s2 * np.log(len(x)), shortest)]
    edges = [0, *borders, len(x)]
    means = [x[a:b].mean() for a, b in pairwise(edges)]
    return [
        Transition(int(kept[b]), steps[kept[b]].item(), float(after - before))
        for b, before, after in zip(borders, means[:-1], means[1:], strict=True)
    ]


def prewhiten(x: Array) -> Array:
    """x_t - phi x_(t-1), t = 1..n-1; phi in 0 to .99 from the series minus a running median."""
    rest = x - running_median(x, TREND)
    past, now = rest[:-1], rest[1:]
    weight = np.ones(len(now))
    phi = 0.0
    for _ in range(5):
        power = float((weight * past) @ past)
        phi = float((weight * past) @ now) / power if power > 0 else 0.0
        left = np.abs(now - phi * past)
        limit = 1.5 * MAD * float(np.median(left)) + 1e-300
        weight = np.minimum(1.0, limit / np.maximum(left, 1e-300))
    phi = min(max(phi, 0.0), LARGEST)
    centred = x - x.mean()
    return centred[1:] - phi * centred[:-1]


def pelt(x: Array, penalty: float, shortest: int = 1) -> list[int]:
    """First points of all segments but the first, in the best partition of x [n]. Exact.

    Cost of a segment: its sum of squares about its mean. A start is given up once no later end
    can make it optimal (Killick et al., theorem 3.1, with K = 0).
    """
    n = len(x)
    centred = x - x.mean()
    sums = np.r_[0.0, np.cumsum(centred)]
    squares = np.r_[0.0, np.cumsum(centred**2)]
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    last = np.zeros(n + 1, np.int64)
    starts = np.zeros(0, np.int64)
    for end in range(shortest, n + 1):
        # A start becomes possible when the segment before it can be whole.
        if end == shortest or end - shortest >= shortest:
            starts = np.append(starts, end - shortest)
        total = sums[end] - sums[starts]
        cost = best[starts] + squares[end] - squares[starts] - total * total / (end - starts)
        least = int(cost.argmin())
        best[end], last[end] = cost[least] + penalty, starts[least]
        starts = starts[cost <= best[end]]
    borders = []
    end = n
    while last[end] > 0:
        end = int(last[end])
        borders.append(end)
    return borders[::-1]
