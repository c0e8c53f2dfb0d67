"""Long series made short enough to draw, honestly: mean and range of every stretch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Envelope:
    """A series as drawn: mean, lowest and highest value of each stretch, and its mean position.

    `exact` says that nothing was merged: every point is a sample.
    """

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    exact: bool


def envelope(x: Floats, y: Floats, most: int) -> Envelope:
    """At most `most` points of y [n] at increasing positions x [n], for an axis in units of x.

    Stretches are equally wide on the axis. NaN samples are left out; a stretch without any
    other is NaN, so that a gap stays a gap.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) <= most:
        return Envelope(x, y, y, y, True)
    edges = np.linspace(x[0], x[-1], most + 1)[1:-1]
    starts = np.unique(np.r_[0, np.searchsorted(x, edges)])
    starts = starts[starts < len(x)]
    known = np.isfinite(y)
    count = np.add.reduceat(known.astype(np.float64), starts)
    total = np.add.reduceat(np.where(known, y, 0.0), starts)
    clean = np.where(known, y, np.nan)
    sizes = np.diff(np.r_[starts, len(x)])
    return Envelope(
        np.add.reduceat(x, starts) / sizes,
        np.divide(total, count, out=np.full(len(starts), np.nan), where=count > 0),
        np.fmin.reduceat(clean, starts),
        np.fmax.reduceat(clean, starts),
        False,
    )


def chosen_rows(total: int, chunk: int, bytes_per_chunk: int, budget: int, most: int) -> list[int]:
    """Rows of a chunked array to read so that a budget of bytes is kept: [row], increasing.

    Half of them evenly spaced, half by their logarithm, for axes of either kind. Where not every
    chunk can be read, the first row of evenly spaced chunks is.
    """
    chunks = -(-total // chunk)
    readable = max(1, budget // max(bytes_per_chunk, 1))
    if chunks <= readable:
        half = min(most // 2, total)
        even, early = np.linspace(0, total - 1, half), np.geomspace(1, total, half) - 1
        return sorted({round(i) for i in (*even.tolist(), *early.tolist())})
    picked = np.linspace(0, chunks - 1, min(readable, most)).round().astype(int)
    return [int(c) * chunk for c in np.unique(picked)]
