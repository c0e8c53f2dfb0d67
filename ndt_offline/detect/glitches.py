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
    clean, mask, shape = x, np.zeros(len(x), bool), whitened_step(noise.phi)
    rest, e = _innovations(clean, noise)
    for width in WIDTHS:
        weights = _one_sided(shape, width)
        for _ in range(2):
            starts = _pulses(rest, e, noise, weights)
            if not starts:
                break
            clean = clean.copy()
            for i in starts:
                left, right = clean[i - 1], clean[i + width]
                share = np.arange(1, width + 1) / (width + 1)
                clean[i : i + width] = left + share * (right - left)
                mask[i : i + width] = True
            rest, e = _innovations(clean, noise)
    return clean, mask


def _innovations(x: Array, noise: Noise) -> tuple[Array, Array]:
    """The series about its mean, and its innovations. [n], [n]."""
    rest = x - x.mean()
    return rest, whiten(rest, noise.phi)


def _pulses(rest: Array, e: Array, noise: Noise, weights: Array) -> list[int]:
    """First points of the pulses of one width, apart from one another, strongest first.

    Only where a pulse is an outlier against its past is it held against its future.
    """
    n, width = len(rest), len(weights) - PAST
    first, stop = PAST + ORDER, n - PAST - ORDER - width + 1
    if stop <= first:
        return []
    local = noise.volatility[first:stop] * float(np.sqrt(weights @ weights))
    past = _filtered(e[first - PAST : stop + width - 1], weights) / local
    wild = np.flatnonzero(np.abs(past) > LIMIT)
    if not len(wild):
        return []
    # Around each, the series turned round: eight points to whiten by, the 16 after, the pulse.
    around = rest[
        (wild + first + len(weights) + ORDER - 1)[:, None] - np.arange(len(weights) + ORDER)
    ]
    past, future = past[wild], whiten(around, noise.phi)[:, ORDER:] @ weights / local[wild]
    least = np.where(past * future > 0, np.minimum(np.abs(past), np.abs(future)), 0.0)
    found: list[int] = []
    while least.max() > LIMIT:
        j = int(wild[least.argmax()])
        found.append(j + first)
        least[np.abs(wild - j) <= 2 * width] = 0.0
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


def _one_sided(shape: Array, width: int) -> Array:
    """Weights on the innovations of the size of a pulse in the last `width` of them; nuisance is
    the level of the 16 before. `shape`: a whitened step. [16 + width]."""
    pulse = np.zeros(PAST + width)
    pulse[PAST:] = shape[:width]
    # Project the level out; of an integrated noise nothing is left of it.
    power, all_in = float(pulse @ pulse), float(pulse.sum())
    away = pulse
    if len(pulse) * shape[-1] ** 2 > 1e-9 * power:
        away = pulse - all_in / len(pulse)
    return away / float(away @ pulse)
