"""Intervals of the place of a step: they hold the step that is reported, and the one planted."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ndt_offline.detect import detect
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.noise import autoregress
from ndt_offline.detect.place import AROUND

N = 400
MANY = 200 if os.environ.get("NDT_SLOW") == "1" else 30


def smooth(rng: np.random.Generator) -> np.ndarray:
    """A decay under noise so smooth, and calming, that its innovations have heavy tails."""
    noise = autoregress(rng.standard_t(3, size=N + 200), (1.9, -0.905))[200:]
    return 3 * np.exp(-np.arange(N) / 60) + 1e-3 * noise


def test_an_interval_holds_the_step_that_is_reported() -> None:
    found = [t for seed in range(12) for t in detect(smooth(np.random.default_rng([3, seed])))]
    found += [
        t
        for seed in range(40)
        for t in detect(
            NOISES["white"](np.random.default_rng([4, seed]), N) + 2 * (np.arange(N) > 190)
        )
    ]
    assert len(found) > 30
    assert all(t.low <= t.step <= t.high for t in found)
    assert all(t.high - t.low <= 2 * AROUND for t in found)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("white", 2.5),
        ("AR .5", 4.0),
        ("AR .9", 6.0),
        ("walk", 8.0),
        ("t3", 3.5),
        ("t5 in walk", 14.0),
    ],
)
def test_an_interval_holds_the_planted_step_as_often_as_it_says(kind: str, size: float) -> None:
    held = []
    for seed in range(MANY):
        rng = np.random.default_rng([9, seed, *kind.encode()])
        at = int(rng.integers(150, 250))
        x = NOISES[kind](rng, N)
        x = x + size * (np.arange(N) >= at)
        near = [t for t in detect(x) if abs(t.index - at) <= AROUND]
        if near:
            best = max(near, key=lambda t: abs(t.T))
            held.append(best.low <= at <= best.high)
    assert len(held) >= MANY / 4
    assert np.mean(held) >= 0.9 - 2 * (0.09 / len(held)) ** 0.5


def test_under_heavy_tails_an_interval_does_not_collapse_on_a_wild_point() -> None:
    """Wild points beside a step: which of them is the step, Gaussian noise would claim to know."""
    held, width = [], []
    for seed in range(MANY):
        rng = np.random.default_rng([11, seed])
        x = rng.standard_t(2, size=N) + 6.0 * (np.arange(N) >= 200)
        near = [t for t in detect(x) if abs(t.index - 200) <= AROUND and t.nu < 8]
        held += [t.low <= 200 <= t.high for t in near[:1]]
        width += [t.high - t.low + 1 for t in near[:1]]
    assert len(held) >= MANY / 4
    assert np.mean(held) >= 0.9 - 2 * (0.09 / len(held)) ** 0.5
    assert np.mean(width) < 10  # and does not say less than it knows
