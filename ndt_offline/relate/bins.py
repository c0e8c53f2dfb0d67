"""Log-spaced bins of a training run: where its early part is as visible as its long end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.ranks import Floats

COUNT = 100


@dataclass(frozen=True)
class Bins:
    """Consecutive samples grouped along t = log(step + 1).

    t        of every sample [n]
    starts   first sample of each bin [B]; sizes [B]; centres: mean t of each bin [B]
    edges    midway between bins: the places where a phase may begin [B - 1]
    """

    t: Floats
    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]
    centres: Floats
    edges: Floats

    def mean(self, values: Floats) -> Floats:
        """Mean of each bin: [..., n] -> [..., B]."""
        return np.add.reduceat(values, self.starts, axis=-1) / self.sizes

    def hinges(self, at: Floats) -> Floats:
        """Bin means of max(t - c, 0) for every c of `at` [C]: [C, B]."""
        return self.mean(np.maximum(self.t - at[:, None], 0.0))


def log_bins(steps: Floats, count: int = COUNT) -> Bins:
    """At most `count` bins of equal width in log(step + 1); bins without a sample do not exist."""
    t = np.log1p(steps - min(0.0, steps[0]))
    width = (t[-1] - t[0]) / count
    number = np.minimum(((t - t[0]) / width).astype(np.intp), count - 1)
    starts = np.flatnonzero(np.append(True, np.diff(number) > 0))
    sizes = np.diff(np.append(starts, len(t)))
    edges = (t[starts[1:] - 1] + t[starts[1:]]) / 2
    return Bins(t, starts, sizes, np.add.reduceat(t, starts) / sizes, edges)
