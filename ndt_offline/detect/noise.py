"""The noise of a series: slow trend, AR(8) correlation, local volatility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ndt_offline.detect.transition import Array

ORDER = 8
ORDER_SHORT = 4  # below ENOUGH points
ENOUGH = 320
TREND = 201  # points of the running median
SCALE = 201  # points of the rolling scale that the AR fit is weighted by
VOLATILITY = 101  # points of the rolling scale of the innovations
MAD = 1.4826  # SD of a Gaussian over the median of its absolute value
LEVERAGE = 3.0  # local scales from which on a value has less say in the AR fit
ROUNDING = 1e-9  # of the series' spread: volatility below it is rounding, not noise
FLOOR = 0.05  # of the typical volatility: a calmer stretch is not believed to be calmer


@dataclass(frozen=True)
class Noise:
    """A model of one series without its steps.

    trend [n]: running median. phi [8]: coefficients, x_t - sum phi_k x_(t-k) is the innovation.
    innovations [n]: of series minus trend, the first eight are 0. volatility [n]: their local SD.
    """

    trend: Array
    phi: Array
    innovations: Array
    volatility: Array


def fit_noise(x: Array) -> Noise:
    """Subtract a running median (201), fit AR(8) robustly, take the innovations' rolling scale."""
    trend = running_median(x, TREND)
    rest = x - trend
    phi = fit_ar(rest / rolling_scale(rest, SCALE, every=4))
    innovations = whiten(rest, phi)
    return Noise(trend, phi, innovations, rolling_scale(innovations, VOLATILITY, skip=ORDER))


def running_median(x: Array, window: int) -> Array:
    """Median of the `window` points around each point; the series is mirrored at its ends."""
    from scipy.ndimage import median_filter

    size = (odd(window, len(x)),)
    return median_filter(x, size, output=np.empty(x.shape, x.dtype), mode="reflect")


def rolling_scale(x: Array, window: int, skip: int = 0, every: int = 1) -> Array:
    """Local SD by the running median of |x|; never below 5 % of the series' own median.

    The first `skip` points are taken as the ones after them. `every` > 1 looks at one point in
    so many, which is enough for weights.
    """
    size = np.abs(x)
    size[:skip] = size[skip : 2 * skip]
    local = MAD * running_median(size[::every], window // every)
    typical = median(local)
    if typical <= 0.0:  # most values are equal: fall back on all of them
        typical = float(np.sqrt(np.mean(size**2))) or 1.0
        return np.full(len(x), max(typical, ROUNDING))
    local = np.maximum(local, max(FLOOR * typical, ROUNDING))
    return local if every == 1 else np.repeat(local, every)[: len(x)]


def odd(window: int, n: int) -> int:
    """The largest odd number that is at most the window and at most n points."""
    return min(window - 1 + window % 2, n - 1 + n % 2)


def median(x: Array) -> float:
    """The upper median of finite values; several times faster than numpy's on short arrays."""
    middle = len(x) // 2
    return float(np.partition(x, middle)[middle])


def fit_ar(u: Array, rounds: int = 3, corner: float = 1.5) -> Array:
    """AR coefficients by a Mallows-type M-estimate (reweighted least squares). [n] -> [8].

    Order 8, or 4 (the rest 0) under 320 points. Rows are weighted down by their own residual
    (Huber) and, where a value before is beyond `LEVERAGE` scales, by that: a pulse of three
    points would else explain itself.
    """
    order = ORDER if len(u) >= ENOUGH else ORDER_SHORT
    # Row k is the series k points before: row 0 is what the others explain.
    rows: Array = np.empty((order + 1, len(u) - order))
    for k, row in enumerate(rows):
        row[:] = u[order - k : len(u) - k]
    size = np.abs(u)
    far = np.maximum(np.maximum(size[3:-1], size[2:-2]), np.maximum(size[1:-3], size[:-4]))
    calm: Array = (LEVERAGE / np.maximum(far[order - 4 :], LEVERAGE)) ** 2
    whole = np.zeros(ORDER + 1)
    whole[0] = 1.0
    ridge = 1e-9 * (1.0 + float(calm @ (rows[0] * rows[0])))
    weight = calm
    for _ in range(rounds):
        normal = (rows[1:] * weight) @ rows.T
        normal.reshape(-1)[1 :: order + 2] += ridge
        whole[1 : order + 1] = -np.linalg.solve(normal[:, 1:], normal[:, 0])
        rest = np.abs(whole[: order + 1] @ rows)
        limit = corner * MAD * median(rest) + 1e-12
        np.divide(limit, np.maximum(rest, limit, out=rest), out=rest)
        weight = np.multiply(rest, calm, out=rest)
    return np.asarray(-whole[1:], np.float64)


def whiten(x: Array, phi: Array) -> Array:
    """x_t - sum_k phi_k x_(t-k) along the last axis; the first eight entries are 0."""
    out: Array = np.zeros(x.shape)
    if out.size:  # all rows in one go; what runs over from one row to the next is set to 0
        out.reshape(-1)[ORDER:] = np.convolve(x.reshape(-1), inverse_filter(phi), "valid")
        out[..., :ORDER] = 0.0
    return out


def inverse_filter(phi: Array) -> Array:
    """1, -phi_1, ..., -phi_8: what a series is convolved with to give its innovations."""
    out = np.ones(len(phi) + 1)
    np.negative(phi, out=out[1:])
    return out


def autoregress(innovations: Array, phi: Sequence[float] | Array) -> Array:
    """x_t = e_t + sum_k phi_k x_(t-k) along the last axis, from zero: what `whiten` undoes.

    A banded triangular system; `scipy.signal` would do it too, but loading it loads scipy.stats.
    """
    from scipy.linalg import solve_banded

    n, order = innovations.shape[-1], len(phi)
    bands = np.empty((order + 1, n))
    bands[0], bands[1:] = 1.0, -np.asarray(phi)[:, None]
    rows = innovations.reshape(-1, n)
    out: Array = solve_banded((order, 0), bands, rows.T, check_finite=False).T
    return out.reshape(innovations.shape)


def whitened_step(phi: Array) -> Array:
    """What whitening makes of a unit step: 1, 1 - phi_1, ..., [5]; the last value stays."""
    return np.cumsum(inverse_filter(phi))
