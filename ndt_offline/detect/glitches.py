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
    e = whiten(x - x.mean(), noise.phi)
    for width in WIDTHS:
        for _ in range(2):
            starts = _pulses(clean, e, noise, width)
            if not starts:
                break
            clean = clean.copy()
            for i in starts:
                left, right = clean[i - 1], clean[i + width]
                share = np.arange(1, width + 1) / (width + 1)
                clean[i : i + width] = left + share * (right - left)
                mask[i : i + width] = True
            e = whiten(clean - clean.mean(), noise.phi)
    return clean, mask


def _pulses(x: Array, e: Array, noise: Noise, width: int) -> list[int]:
    """First points of the pulses of that width, apart from one another, strongest first.

    x [n], its innovations e [n]. Those of the series turned round are asked for only where a
    pulse is an outlier against its past.
    """
    first, stop = PAST + ORDER, len(x) - PAST - ORDER - width + 1
    if stop <= first:
        return []
    weights = _one_sided(noise.phi, width)
    local = noise.volatility[first:stop] * float(np.sqrt(weights @ weights))
    past = _filtered(e[first - PAST : stop + width - 1], weights) / local
    if max(past.max(), -past.min()) <= LIMIT:
        return []
    back = whiten((x - x.mean())[::-1], noise.phi)
    future = _filtered(back, weights)[::-1][first:stop] / local
    least = np.where(past * future > 0, np.minimum(np.abs(past), np.abs(future)), 0.0)
    found: list[int] = []
    while least.max() > LIMIT:
        j = int(least.argmax())
        found.append(j + first)
        least[max(0, j - 2 * width) : j + 2 * width + 1] = 0.0
    return found


def _filtered(e: Array, weights: Array) -> Array:
    """Sum of the weights times e, [16 + width] at a time; the first 16 weights are all the same.

    Entry j: the 16 points from j on, then the pulse. The 16 are summed by doubling, not by a
    running sum: a wild value reaches no further than its own 16 points.
    """
    total = e
    for reach in (1, 2, 4, 8):
        total = total[:-reach] + total[reach:]
    n = len(e) - len(weights) + 1
    out = total[:n] * weights[0]
    for k, weight in enumerate(weights[PAST:].tolist(), start=PAST):
        out += weight * e[k : k + n]
    return out


def _one_sided(phi: Array, width: int) -> Array:
    """Weights on the innovations of the size of a pulse in the last `width` of them; nuisance is
    the level of the 16 before. [16 + width]."""
    shape = whitened_step(phi)
    pulse = np.zeros(PAST + width)
    pulse[PAST:] = shape[:width]
    # Project the level out; of an integrated noise nothing is left of it.
    power, all_in = float(pulse @ pulse), float(pulse.sum())
    away = pulse
    if len(pulse) * shape[-1] ** 2 > 1e-9 * power:
        away = pulse - all_in / len(pulse)
    return away / float(away @ pulse)
