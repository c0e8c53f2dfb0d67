"""Log-spaced bins of a training run: where its early part is as visible as its long end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.ranks import Floats

COUNT = 100
# A phase is at least this many bins long, and a breakpoint is placed to a fifth of a bin.
SHORTEST = 3
FINE = 5


@dataclass(frozen=True)
class Bins:
    """Consecutive samples grouped along t = log(step + 1).

    t        of every sample [n]
    width    of a bin, in t
    starts   first sample of each bin [B]; sizes [B]; centres: mean t of each bin [B]
    edges    midway between bins [B - 1]
    """

    t: Floats
    width: float
    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]
    centres: Floats
    edges: Floats

    def mean(self, values: Floats) -> Floats:
        """Mean of each bin: [..., n] -> [..., B]."""
        return np.add.reduceat(values, self.starts, axis=-1) / self.sizes

    @cached_property
    def places(self) -> Floats:
        """Where a breakpoint may lie, to a fifth of a bin: [F]; every fifth is an edge."""
        inner = self.edges[SHORTEST - 1 : len(self.edges) - SHORTEST + 1]
        grid = np.arange((len(inner) - 1) * FINE + 1) / FINE
        return np.interp(grid, np.arange(len(inner)), inner)

    @cached_property
    def hinges(self) -> Floats:
        """Bin means of max(t - c, 0) for every place c: [F, B]."""
        hinges = np.maximum(self.centres - self.places[:, None], 0.0)
        # Only where c lies within a bin is its mean not that of its centre.
        within = np.searchsorted(self.edges, self.places, side="right")
        for row, (place, b) in enumerate(zip(self.places, within, strict=True)):
            inside = self.t[self.starts[b] : self.starts[b] + self.sizes[b]]
            hinges[row, b] = np.maximum(inside - place, 0.0).mean()
        return hinges


def log_bins(steps: Floats, count: int = COUNT) -> Bins:
    """At most `count` bins of equal width in log(step + 1); bins without a sample do not exist."""
    t = np.log1p(steps)
    width = (t[-1] - t[0]) / count
    number = np.minimum(((t - t[0]) / width).astype(np.intp), count - 1)
    starts = np.flatnonzero(np.append(True, np.diff(number) > 0))
    sizes = np.diff(np.append(starts, len(t)))
    edges = (t[starts[1:] - 1] + t[starts[1:]]) / 2
    return Bins(t, float(width), starts, sizes, np.add.reduceat(t, starts) / sizes, edges)
