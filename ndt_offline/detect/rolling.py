"""The existing tool's rule: a z-score against the points just before."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.transition import Array, Points, Steps, Transition
from ndt_offline.errors import UsageError

FLAT = 1e-10
TINY = 1e-8
CHUNK = 64


def zscores(values: Array, window: int = 50, min_points: int = 20) -> Array:
    """|x_i - mean| / SD of the up to `window` points before i. [..., n] -> [..., n].

    0 before point `min_points` and where the SD (population, divided by n) is below 1e-10; NaN
    where the window or the point is not finite. This is the rule of ndtracker's JumpDetector
    (window 50, minimum 20, z 3). It is a rule, not a test: it fires 5 times per 1000 points of
    white noise at z = 3, and many times after one step.

    Means and squares of windows are merged pairwise (Chan, Golub and LeVeque 1983); nothing is
    subtracted from a running sum, so a large offset costs no digits. Where the spread is so small
    that rounding could matter, the plain formula is used.
    """
    x = np.asarray(values, np.float64)
    if x.size == 0:
        return np.zeros(x.shape)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    out = np.zeros(rows.shape)
    for first in range(0, len(rows), CHUNK):
        block = rows[first : first + CHUNK]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            out[first : first + CHUNK] = _block(block, window, min_points)
    return out.reshape(x.shape)


def _block(x: Array, window: int, min_points: int) -> Array:
    z = np.zeros(x.shape)
    for i in range(min_points, min(window, x.shape[1])):
        z[:, i] = _plain(x[:, :i], x[:, i])
    start = max(window, min_points)
    if x.shape[1] <= start:
        return z
    mean, squares = _moments(x[:, :-1], window)
    mean, spread = mean[:, start - window :], np.sqrt(squares[:, start - window :] / window)
    z[:, start:] = np.abs(x[:, start:] - mean) / spread
    doubtful = spread < np.maximum(1.01 * FLAT, TINY * np.abs(mean))
    if doubtful.any():
        rows, points = np.nonzero(doubtful)
        z[rows, points + start] = _exact(x, rows, points + start, window)
    return z


def _moments(x: Array, window: int) -> tuple[Array, Array]:
    """Mean and sum of squared deviations of every full window: [k, n] -> [k, n - window + 1]."""
    mean, squares, length = x, np.zeros_like(x), 1
    total: tuple[Array, Array, int] | None = None
    while length <= window:
        if window & length:
            total = _merge(*total, mean, squares, length) if total else (mean, squares, length)
        mean, squares, length = _merge(mean, squares, length, mean, squares, length)
    assert total is not None
    return total[0], total[1]


def _merge(
    mean_a: Array, squares_a: Array, a: int, mean_b: Array, squares_b: Array, b: int
) -> tuple[Array, Array, int]:
    """Windows of `a` points followed at once by windows of `b` points, as one window."""
    n = max(0, min(mean_a.shape[1], mean_b.shape[1] - a))
    delta = mean_b[:, a : a + n] - mean_a[:, :n]
    squares = delta * delta
    squares *= a * b / (a + b)
    squares += squares_a[:, :n]
    squares += squares_b[:, a : a + n]
    delta *= b / (a + b)
    delta += mean_a[:, :n]
    return delta, squares, a + b


def _plain(window: Array, point: Array) -> Array:
    spread = window.std(axis=-1)
    return np.where(spread < FLAT, 0.0, np.abs((point - window.mean(axis=-1)) / spread))


def _exact(x: Array, rows: Points, points: Points, window: int) -> Array:
    """The plain formula for chosen points that have a full window; a few thousand at a time."""
    out = np.empty(len(rows))
    before = np.arange(-window, 0)
    for first in range(0, len(rows), 8192):
        part = slice(first, first + 8192)
        windows = x[rows[part, None], points[part, None] + before]
        out[part] = _plain(windows, x[rows[part], points[part]])
    return out


def crossings(
    values: Array, threshold: float = 3.0, window: int = 50, min_points: int = 20
) -> tuple[Points, Points, Array]:
    """Row, point and z of every point above the threshold, for many series [k, n] at once.

    Points within a millionth of the threshold are computed again with the plain formula, so that
    exactly the same points are found as by the existing tool.
    """
    if window < 2 or min_points < 1 or not threshold > 0:
        raise UsageError("window must be at least 2, min_points at least 1, threshold above 0")
    x = np.ascontiguousarray(values, np.float64)
    z = zscores(x, window, min_points)
    rows, points = np.nonzero(z > threshold * (1 - 1e-6))
    found = z[rows, points]
    full = points >= window
    with np.errstate(invalid="ignore", divide="ignore"):
        found[full] = _exact(x, rows[full], points[full], window)
    keep = found > threshold
    return rows[keep], points[keep], found[keep]


def zscore(
    values: Array, steps: Steps, threshold: float = 3.0, window: int = 50, min_points: int = 20
) -> list[Transition]:
    """The crossings of one series [n], as transitions."""
    _, points, z = crossings(np.asarray(values)[None], threshold, window, min_points)
    return [
        Transition(
            index=i,
            step=steps[i].item(),
            size=float(values[i] - values[i - 1]),
            T=found,
            drops_out=found,
        )
        for i, found in zip(points.tolist(), z.tolist(), strict=True)
    ]
