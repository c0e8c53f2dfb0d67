"""Glitches: one to three points that fit neither their past nor their future."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.noise import ORDER, Noise, whiten, whitened_step
from ndt_offline.detect.transition import Array

WIDTHS = (1, 2, 3)
LIMIT = 6.0  # local standard errors, on both sides
PAST = 16  # points that say what was to be expected


def without_glitches(x: Array, noise: Noise) -> tuple[Array, Array]:
    """The series with glitches replaced by the line between their neighbours. [n], mask [n].

    A pulse of 1, 2 or 3 points is a glitch only if it is an outlier of the same sign, by more
    than 6 local standard errors, against the 16 points before it and against the 16 after it. A
    step is one against its past only; a value far out in smooth noise is close to both sides. (A
    filter that looks at the distance from a running median takes such values away, and with
    them the steps of smooth noise.)
    """
    clean, mask = x, np.zeros(len(x), bool)
    both = _both_ways(x, noise)
    for width in WIDTHS:
        for _ in range(2):
            starts = _pulses(both, noise, width)
            if not starts:
                break
            clean = clean.copy()
            for i in starts:
                left, right = clean[i - 1], clean[i + width]
                share = np.arange(1, width + 1) / (width + 1)
                clean[i : i + width] = left + share * (right - left)
                mask[i : i + width] = True
            both = _both_ways(clean, noise)
    return clean, mask


def _both_ways(x: Array, noise: Noise) -> Array:
    """Innovations of the series and of the series turned round. [2, n]."""
    both = np.empty((2, len(x)))
    both[0] = x - x.mean()
    both[1] = both[0, ::-1]
    return whiten(both, noise.phi)


def _pulses(both: Array, noise: Noise, width: int) -> list[int]:
    """First points of the pulses of that width, apart from one another, strongest first."""
    first, stop = PAST + ORDER, both.shape[1] - PAST - ORDER - width + 1
    if stop <= first:
        return []
    weights = _one_sided(noise.phi, width)
    local = noise.volatility[first:stop] * float(np.sqrt(weights @ weights))
    # Entry j of the convolution: the pulse starts at point j + PAST.
    forward = np.convolve(both[0], weights[::-1], "valid")
    past = forward[first - PAST : stop - PAST] / local
    if max(past.max(), -past.min()) <= LIMIT:
        return []
    future = np.convolve(both[1], weights[::-1], "valid")[::-1][first:stop] / local
    least = np.where(past * future > 0, np.minimum(np.abs(past), np.abs(future)), 0.0)
    found: list[int] = []
    while least.max() > LIMIT:
        j = int(least.argmax())
        found.append(j + first)
        least[max(0, j - 2 * width) : j + 2 * width + 1] = 0.0
    return found


def _one_sided(phi: Array, width: int) -> Array:
    """Weights on the innovations of the size of a pulse in the last `width` of them; nuisance is
    the level of the 16 before. [16 + width]."""
    shape = whitened_step(phi)
    pulse = np.zeros(PAST + width)
    pulse[PAST:] = shape[:width]
    # Project the level out; of an integrated noise nothing is left of it.
    away = pulse
    if len(pulse) * shape[-1] ** 2 > 1e-9 * float(pulse @ pulse):
        away = pulse - pulse.mean()
    return away / float(away @ pulse)
