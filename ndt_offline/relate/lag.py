"""Lead and lag: which of two coupled series moves first, and how surely."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.levels import Columns
from ndt_offline.relate.ranks import Floats
from ndt_offline.relate.serial import autocorrelation, effective_n, p_of_units

REACH = 50


def reach_for(n: int) -> int:
    """The largest lag looked at: 50 samples, a tenth of a short series."""
    return max(1, min(REACH, n // 10))


def cross_correlation(units_x: Floats, units_y: Floats, reach: int) -> Floats:
    """r(l) = sum_i x[i] y[i + l] for l = -reach..reach: [k, t, 2 reach + 1].

    Rows [k, n], [t, n] have mean 0 and length 1. A peak at l > 0: the series leads the target by l.
    """
    (k, n), t = units_x.shape, len(units_y)
    moved = np.zeros((2 * reach + 1, t, n))
    for place, lag in enumerate(range(-reach, reach + 1)):
        if lag >= 0:
            moved[place, :, : n - lag] = units_y[:, lag:]
        else:
            moved[place, :, -lag:] = units_y[:, : n + lag]
    product = units_x @ moved.reshape(-1, n).T
    return product.reshape(k, 2 * reach + 1, t).transpose(0, 2, 1)


def lead(units_x: Floats, units_y: Floats, level: float = 0.95) -> Columns:
    """Columns [k, t]: `lag` of the strongest |r|, in samples, its interval, `rho_lag`, `p_lag`.

    The interval spans the lags whose correlation, of the same sign, is not significantly below
    the strongest: r(best) - r(l) <= z sqrt(2 (V(0) - V(l - best))), where Bartlett's (1935)
    V(d) = 1/n sum_j r_x(j) r_y(j + d) is the covariance of two cross-correlations d lags apart.
    Of an uncoupled pair it says nothing; it then spans most lags, as it should.

    p_lag is that of the strongest r times the number of lags looked at (Bonferroni).
    """
    from scipy.special import ndtri

    reach = reach_for(units_x.shape[1])
    cross = cross_correlation(units_x, units_y, reach)
    gone = np.asarray(np.isnan(cross).any(axis=2))
    best = np.argmax(np.where(gone[..., None], 0.0, np.abs(cross)), axis=2)
    peak = np.take_along_axis(cross, best[..., None], axis=2)
    covariance = _bartlett(units_x, units_y, 2 * reach)
    apart = np.abs(np.arange(2 * reach + 1) - best[..., None])
    spread = 2 * (covariance[..., :1] - np.take_along_axis(covariance, apart, axis=2))
    allowed = ndtri((1 + level) / 2) * np.sqrt(np.maximum(spread, 0))
    near = np.less_equal(np.abs(peak) - np.sign(peak) * cross, allowed)
    low, high = np.argmax(near, axis=2), 2 * reach - np.argmax(np.flip(near, 2), axis=2)
    columns = {"lag": best, "lag_low": low, "lag_high": high}
    lags = {name: np.where(gone, np.nan, at - float(reach)) for name, at in columns.items()}
    p = p_of_units(peak[..., 0], effective_n(units_x, units_y), units_x.shape[1])
    return {**lags, "rho_lag": peak[..., 0], "p_lag": np.minimum(p * cross.shape[2], 1.0)}


def _bartlett(units_x: Floats, units_y: Floats, furthest: int) -> Floats:
    """V(d) for d = 0..furthest: [k, t, furthest + 1]."""
    n = units_x.shape[1]
    lags = min(n - 1, furthest)
    size = 1 << int(np.ceil(np.log2(2 * (lags + furthest) + 1)))

    def spectrum(units: Floats) -> Floats:
        row = np.zeros((len(units), size))
        own = autocorrelation(units, lags)
        row[:, 0], row[:, 1 : lags + 1], row[:, size - lags :] = 1.0, own, own[:, ::-1]
        return np.fft.rfft(row, axis=1).real

    product = spectrum(units_x)[:, None] * spectrum(units_y)[None, :]
    return np.fft.irfft(product, size, axis=2)[..., : furthest + 1] / n
