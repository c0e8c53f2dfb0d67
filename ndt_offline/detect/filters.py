"""Step filters: generalised-least-squares weights of a step in the middle of a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ndt_offline.detect.noise import MAD, ORDER, Noise, whiten, whitened_step
from ndt_offline.detect.transition import Array, Points

HALVES = (16, 32, 64, 128)
CUBIC = 128  # from this half width on, the nuisance is a cubic, below it a straight line
REACH = HALVES[-1] + ORDER


@dataclass(frozen=True)
class Bank:
    """The filters of one noise model.

    halves: half widths in use. weights [w, 2 * 128]: what multiplies the innovations around a
    point, zero-padded on both sides. response [w, 2 * 132 + 1]: output at a distance d from a
    unit step, d = -132..132.
    """

    halves: tuple[int, ...]
    weights: Array
    response: Array


def make_bank(phi: Array, n: int) -> Bank:
    """Filters for a series of n points: those that fit at least twice."""
    halves = tuple(h for h in HALVES if n >= 4 * h + 8)
    weights = np.zeros((len(halves), 2 * HALVES[-1]))
    for row, h in zip(weights, halves, strict=True):
        row[HALVES[-1] - h : HALVES[-1] + h] = _weights(phi, h)
    return Bank(halves, weights, _response(weights, whitened_step(phi)))


def columns(phi: Array, half: int) -> Array:
    """Whitened design of a window: step at the centre, then the nuisance. [p, 2 * half]."""
    t = np.arange(-half - ORDER, half) / half
    powers = 4 if half >= CUBIC else 2
    raw = np.stack([(t >= 0).astype(np.float64), *(t**k for k in range(powers))])
    return whiten(raw, phi)[:, ORDER:]


def _weights(phi: Array, half: int) -> Array:
    design = columns(phi, half)
    normal = design @ design.T
    # An integrated noise whitens the constant to nothing; the ridge keeps the system solvable.
    normal[np.diag_indices(len(normal))] += 1e-12 * np.trace(normal)
    first = np.zeros(len(normal))
    first[0] = 1.0
    return np.linalg.solve(normal, first) @ design


def _response(weights: Array, step: Array) -> Array:
    """Output at t of a unit step at t - d: sum over the weights of the whitened step."""
    width, half = 2 * REACH + 1, HALVES[-1]
    padded = np.zeros((len(weights), width + ORDER))
    # Entry j of `padded` is the weight at offset j - REACH from the centre.
    padded[:, REACH - half : REACH + half] = weights
    tail = np.cumsum(padded[:, ::-1], axis=1)[:, ::-1]
    out = step[-1] * tail
    for k in range(ORDER):
        out[:, : width + ORDER - k] += (step[k] - step[-1]) * padded[:, k:]
    return out[:, width - 1 :: -1]


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
    fast = next_fast_len(n + 2 * half, real=True)
    signals = rfft(np.stack([whiten(x - x.mean(), noise.phi), noise.volatility**2]), fast)
    kernels = rfft(np.stack([bank.weights, bank.weights**2], axis=1)[..., ::-1], fast)
    out = irfft(kernels * signals, fast)[..., half - 1 : half - 1 + n]
    size, error = out[:, 0], np.sqrt(np.maximum(out[:, 1], 0.0))
    for row, h in enumerate(bank.halves):
        for outside in (slice(0, h + ORDER), slice(n - h + 1, None)):
            size[row, outside], error[row, outside] = 0.0, np.inf
    return Map(size, error)


def calibrate(size: Array, error: Array, halves: tuple[int, ...]) -> Array:
    """Series-wide scale of size / error per width: 1.4826 times the median of its |.|. [w]."""
    n = size.shape[1]
    scale = np.empty(len(halves))
    for row, h in enumerate(halves):
        inside = slice(h + ORDER, n - h + 1)
        scale[row] = MAD * np.median(np.abs(size[row, inside]) / error[row, inside])
    return np.maximum(scale, 1e-12)


def respond(bank: Bank, rows: Points, distance: Points) -> Array:
    """Output of filter `rows` at `distance` points after a unit step; 0 out of reach."""
    inside = np.abs(distance) <= REACH
    return np.where(inside, bank.response[rows, np.clip(distance, -REACH, REACH) + REACH], 0.0)
