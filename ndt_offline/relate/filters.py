"""What is done to a series before it is ranked: smoothing, detrending, differencing, scaling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.ranks import Floats

TREND_WINDOW = 51
SCALE_WINDOW = 121
# The rolling scale is taken at every tenth sample (400 times in a long series) and joined by
# straight lines: it is a slow curve, and a median at every sample would cost more than everything
# else together.
SCALE_STRIDE = 10


def window_for(n: int, wanted: int) -> int:
    """`wanted`, or for a short series the odd number near n / 8: a window is always odd."""
    return min(wanted, max(3, n // 8 // 2 * 2 + 1))


def centred_mean(values: Floats, window: int) -> Floats:
    """Mean over an odd `window` around every sample of the rows [k, n]; narrower at both ends.

    At the ends the window shrinks on both sides alike, so a straight line stays a straight line.
    NaN are left out of the mean; where all are NaN the result is.
    """
    n = values.shape[1]
    at = np.arange(n)
    half = np.minimum(np.minimum(at, n - 1 - at), window // 2)
    low, high = at - half, at + half + 1
    missing = np.isnan(values)
    if not missing.any():
        return _window_sums(values, low, high) / (high - low)
    count = _window_sums((~missing).astype(np.float64), low, high)
    total = _window_sums(np.where(missing, 0.0, values), low, high)
    return np.divide(total, count, out=np.full(values.shape, np.nan), where=count > 0.5)


def _window_sums(values: Floats, low: NDArray[np.intp], high: NDArray[np.intp]) -> Floats:
    # Sums from the row's first value: a running sum of a large constant loses the small digits.
    offset = values[:, :1]
    running = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values - offset, axis=1, out=running[:, 1:])
    return running[:, high] - running[:, low] + offset * (high - low)


def rolling_scale(values: Floats, window: int = SCALE_WINDOW) -> Floats:
    """Rolling median of |values| of the rows [k, n] over `window` samples: their volatility [k, n].

    Where more than half a window is exactly zero the mean of |values| stands in for the median.
    """
    k, n = values.shape
    window = window_for(n, window)
    stride = max(SCALE_STRIDE, n // 400)
    centres = np.unique(np.append(np.arange(0, n, stride), n - 1))
    starts = np.clip(centres - window // 2, 0, n - window)
    sizes = np.abs(values)
    coarse = np.empty((k, len(centres)))
    middle = window // 2
    for column, start in enumerate(starts):
        piece = sizes[:, start : start + window]
        coarse[:, column] = np.partition(piece, middle, axis=1)[:, middle]
        dead = coarse[:, column] == 0
        if dead.any():
            coarse[dead, column] = piece[dead].mean(axis=1)
    return _joined(coarse, centres, n)


def _joined(coarse: Floats, centres: NDArray[np.intp], n: int) -> Floats:
    grid = np.arange(n)
    right = np.clip(np.searchsorted(centres, grid), 1, len(centres) - 1)
    share = (grid - centres[right - 1]) / (centres[right] - centres[right - 1])
    return coarse[:, right - 1] * (1 - share) + coarse[:, right] * share


def scaled(values: Floats) -> Floats:
    """Rows [k, n] divided by their rolling scale.

    Two series that merely calm down together look coupled to any test of their changes; after
    the division each has the same volatility throughout.
    """
    scale = rolling_scale(values)
    return np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)


def detrended(values: Floats) -> Floats:
    """Complete rows [k, n] minus their centred mean of 51 samples (fewer for a short series).

    Sample i is averaged over at most i / 4 samples to each side: a loss falls by half within the
    first few checkpoints, a window across that leaves the same bend in every series, and bends
    that agree would be taken for coupled fluctuations (in 8 of 10 independent pairs).
    """
    n = values.shape[1]
    at = np.arange(n)
    half = np.minimum(np.minimum(at // 4, n - 1 - at), window_for(n, TREND_WINDOW) // 2)
    return values - _window_sums(values, at - half, at + half + 1) / (2 * half + 1)
