"""Glitches: against the rule written out point by point, with least squares."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.detect.glitches import LIMIT, PAST, WIDTHS, without_glitches
from ndt_offline.detect.noise import ORDER, Noise, fit_noise

N = 420


def one_sided(x: np.ndarray, noise: Noise, i: int, width: int, volatility: float) -> float:
    """Pulse at i .. i + width - 1 against the 16 points before it, in local standard errors."""
    taps = np.r_[1.0, -noise.phi]
    first = i - PAST
    data = [taps @ x[t - ORDER : t + 1][::-1] for t in range(first, i + width)]
    pulse = np.zeros(len(x))
    pulse[i:] = 1.0  # while it lasts, it looks like a step
    shape = np.array([taps @ pulse[t - ORDER : t + 1][::-1] for t in range(first, i + width)])
    design = np.stack([shape, np.ones(len(shape))], axis=1)
    error = np.sqrt(np.linalg.inv(design.T @ design)[0, 0])
    return float(np.linalg.lstsq(design, np.array(data), rcond=None)[0][0] / error / volatility)


def by_the_rule(x: np.ndarray, noise: Noise) -> np.ndarray:
    """Mask of the glitches: wild on both sides and of one sign, strongest first, widths in turn."""
    clean, mask = x.copy(), np.zeros(len(x), bool)
    for width in WIDTHS:
        for _ in range(2):
            least, rest = np.zeros(len(x)), clean - clean.mean()
            for i in range(PAST + ORDER, len(x) - PAST - ORDER - width + 1):
                past = one_sided(rest, noise, i, width, noise.volatility[i])
                turned = len(x) - i - width
                future = one_sided(rest[::-1], noise, turned, width, noise.volatility[i])
                least[i] = min(abs(past), abs(future)) if past * future > 0 else 0.0
            if least.max() <= LIMIT:
                break
            while least.max() > LIMIT:
                i = int(least.argmax())
                clean[i : i + width] = np.interp(
                    np.arange(i, i + width), [i - 1, i + width], clean[[i - 1, i + width]]
                )
                mask[i : i + width] = True
                least[max(0, i - 2 * width) : i + 2 * width + 1] = 0.0
    return mask


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.95])
def test_the_glitches_are_those_of_the_rule(phi: float) -> None:
    rng = np.random.default_rng(int(100 * phi))
    x = rng.normal(size=N)
    for t in range(1, N):
        x[t] += phi * x[t - 1]
    x[150:] += 9.0  # wild against its past only
    for i, width, size in ((60, 1, 14.0), (64, 1, -12.0), (100, 2, 15.0), (250, 3, -16.0)):
        x[i : i + width] += size
    x[330] += 7.0  # about at the limit
    noise = fit_noise(x)
    clean, mask = without_glitches(x, noise)
    np.testing.assert_array_equal(mask, by_the_rule(x, noise))
    assert mask[60] and mask[250:253].all() and not mask[145:156].any()
    np.testing.assert_array_equal(clean[~mask], x[~mask])


def test_a_series_without_glitches_is_left_as_it_is() -> None:
    x = np.random.default_rng(3).normal(size=N)
    x[200:] += 20.0
    clean, mask = without_glitches(x, fit_noise(x))
    assert clean is x and not mask.any()
