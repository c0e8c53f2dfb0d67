"""Step filters: generalised-least-squares weights of a step in the middle of a window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ndt_offline.detect.noise import MAD, ORDER, Noise, inverse_filter, median, whiten
from ndt_offline.detect.transition import Array, Points

HALVES = (16, 32, 64, 128)
CUBIC = 128  # from this half width on, the nuisance is a cubic, below it a straight line
REACH = HALVES[-1] + ORDER
LEAST = 0.5  # of the theoretical error: below it the calibration is not believed
_STEP = np.eye(5)[:, :1]


@dataclass(frozen=True)
class Bank:
    """The filters of one noise model.

    halves [w]: half widths in use. designs [w, 5, 256]: whitened step, then the nuisance, 0 where
    unused. weights [w, 256]: what multiplies the innovations around a point. response [w, 273]:
    output at a distance d = -136..136 from a unit step.
    """

    halves: tuple[int, ...]
    designs: Array
    weights: Array
    response: Array


def make_bank(phi: Array, n: int) -> Bank:
    """Filters for a series of n points: those that fit at least twice."""
    halves: tuple[int, ...] = tuple(h for h in HALVES if n >= 4 * h + ORDER)
    designs = _used()[: len(halves)] * whiten(_raw_design(), phi)[:, ORDER:]
    solved = np.linalg.solve(_normal(designs), _STEP)
    weights = np.asarray((solved.swapaxes(1, 2) @ designs)[:, 0], np.float64)
    return Bank(halves, designs, weights, _response(weights, phi))


@cache
def _raw_design() -> Array:
    """Step at the centre and powers 0 to 3 of time, with the eight points before the window."""
    t = np.arange(-HALVES[-1] - ORDER, HALVES[-1]) / HALVES[-1]
    return np.stack([(t >= 0).astype(np.float64), *(t**k for k in range(4))])


@cache
def _used() -> Array:
    """1 where a filter uses a column at a point, else 0. [4, 5, 256]."""
    used = np.zeros((len(HALVES), 5, 2 * HALVES[-1]))
    for one, h in zip(used, HALVES, strict=True):
        one[: 5 if h >= CUBIC else 3, HALVES[-1] - h : HALVES[-1] + h] = 1.0
    return used


def _normal(designs: Array) -> Array:
    """Normal equations; a little on the diagonal, 1 where a column is unused.

    An integrated noise whitens the constant to nothing; the ridge keeps the system solvable.
    """
    normal = designs @ designs.swapaxes(1, 2)
    power = np.diagonal(normal, axis1=1, axis2=2)
    extra = np.where(power > 0, 1e-13 * power.max(axis=1, keepdims=True), 1.0)
    normal.reshape(len(normal), -1)[:, :: normal.shape[1] + 1] += extra
    return np.asarray(normal, np.float64)


def _response(weights: Array, phi: Array) -> Array:
    """Output at t of a unit step at t - d: the running sum over d of that to a unit pulse."""
    w, width = weights.shape
    turned = np.zeros((w, width + ORDER))
    turned[:, :width] = weights[:, ::-1]
    pulse = np.convolve(turned.reshape(-1), inverse_filter(phi))[: turned.size]
    out = np.zeros((w, 2 * REACH + 1))
    # Entry 0 is at distance -REACH; the last point of a filter is at its distance 127.
    out[:, ORDER + 1 :] = pulse.reshape(turned.shape).cumsum(axis=1)
    return out


@dataclass(frozen=True)
class Map:
    """Filter output at every point. size, error [w, n]: step estimate and its standard error
    before calibration; 0 and inf where the filter does not fit."""

    size: Array
    error: Array


def run_filters(x: Array, noise: Noise, bank: Bank) -> Map:
    """Step estimates [w, n] and their standard errors through the local volatility."""
    from scipy.fft import irfft, next_fast_len, rfft

    n, half = len(x), HALVES[-1]
    fast = next_fast_len(max(n, 2 * half), real=True)
    kernels = np.zeros((len(bank.halves), 2, fast))
    # Backwards in time: the weight of the point itself first, those of later points at the end.
    for each, weights in ((0, bank.weights[:, ::-1]), (1, bank.weights[:, ::-1] ** 2)):
        kernels[:, each, : half + 1] = weights[:, half - 1 :]
        kernels[:, each, 1 - half :] = weights[:, : half - 1]
    signals = np.zeros((2, fast))
    signals[0, :n], signals[1, :n] = whiten(x - x.mean(), noise.phi), noise.volatility**2
    # What wraps around falls on points that a filter does not reach anyway.
    product = rfft(kernels)
    product *= rfft(signals)
    out = irfft(product, fast)
    # The transform's own rounding, where the volatility spans many orders of magnitude.
    least = max(noise.volatility.min(), 1e-7 * noise.volatility.max()) ** 2
    power = (bank.weights**2).sum(axis=1, keepdims=True)
    size, error = out[:, 0, :n], np.maximum(out[:, 1, :n], least * power)
    np.sqrt(error, out=error)
    for row, h in enumerate(bank.halves):
        for outside in (slice(0, h + ORDER), slice(n - h + 1, None)):
            size[row, outside], error[row, outside] = 0.0, np.inf
    return Map(size, error)


def calibrate(size: Array, error: Array, halves: tuple[int, ...]) -> Array:
    """Series-wide scale of size / error per width: 1.4826 times the median of its |.|. [w]."""
    n = size.shape[1]
    inside = [slice(h + ORDER, n - h + 1) for h in halves]
    ratio = np.abs(size) / error
    return np.maximum([MAD * median(r[i]) for r, i in zip(ratio, inside, strict=True)], LEAST)


def respond(bank: Bank, rows: Points, distance: Points) -> Array:
    """Output of filter `rows` at `distance` points after a unit step; 0 out of reach."""
    near = np.maximum(np.minimum(distance, REACH), -REACH)
    return np.where(near == distance, bank.response[rows, near + REACH], 0.0)
