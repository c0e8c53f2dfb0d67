"""Glitches: one to three points that fit neither their past nor their future."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.noise import ORDER, Noise, whiten
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
    for width in WIDTHS:
        for _ in range(2):
            starts = _pulses(clean, noise, width)
            if not len(starts):
                break
            clean = clean.copy()
            for i in starts:
                left, right = clean[i - 1], clean[i + width]
                share = np.arange(1, width + 1) / (width + 1)
                clean[i : i + width] = left + share * (right - left)
                mask[i : i + width] = True
    return clean, mask


def _pulses(x: Array, noise: Noise, width: int) -> list[int]:
    """First points of the pulses of that width, apart from one another, strongest first."""
    n, weights = len(x), _one_sided(noise.phi, width)
    error, raw = weights
    reach = len(raw) - width
    if n < 2 * reach + width:
        return []
    centred = x - x.mean()
    forward = np.convolve(centred, raw[::-1], "valid")  # entry j: pulse starts at j + reach
    backward = np.convolve(centred, raw, "valid")  # entry j: pulse starts at j
    inner = slice(reach, n - reach - width + 1)
    local = error * noise.volatility[inner]
    past, future = forward[: n - 2 * reach - width + 1] / local, backward[inner] / local
    both = np.where(past * future > 0, np.minimum(np.abs(past), np.abs(future)), 0.0)
    found: list[int] = []
    while len(both) and both.max() > LIMIT:
        j = int(both.argmax())
        found.append(j + reach)
        both[max(0, j - 2 * width) : j + 2 * width + 1] = 0.0
    return found


def _one_sided(phi: Array, width: int) -> tuple[float, Array]:
    """Standard error per unit volatility, and the weights on the raw points, of the size of a
    pulse in the last `width` points; nuisance is the level before it."""
    length = PAST + ORDER + width
    raw = np.zeros((2, length))
    raw[0, -width:] = 1.0
    raw[1] = 1.0
    design = whiten(raw, phi)[:, ORDER:]
    normal = design @ design.T
    normal[1, 1] += 1e-9 * (1.0 + normal[1, 1])
    on_innovations = np.linalg.solve(normal, [1.0, 0.0]) @ design
    out = np.zeros(length)
    out[ORDER:] = on_innovations
    for k, weight in enumerate(phi.tolist(), start=1):
        out[ORDER - k : length - k] -= weight * on_innovations
    return float(np.sqrt(on_innovations @ on_innovations)), out
