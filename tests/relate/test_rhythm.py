"""Rhythms of the clock: planted lines are taken out, noise stays, epochs couple nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ndt_offline.relate import couplings_table
from ndt_offline.relate.rhythm import without_rhythm

N = 1600
AT = np.arange(N)


@pytest.mark.parametrize("period", [11.3, 20.0, 47.0, 150.0])
def test_a_planted_rhythm_is_taken_out_and_the_noise_is_left(period: float) -> None:
    noise = np.random.default_rng(1).normal(size=(1, N))
    wave = (AT % period) / period * 2.0
    left = without_rhythm(noise + wave - wave.mean())
    # White noise has 1 everywhere; the rhythm's first line had n (2 / pi)^2 / 4 = 160.
    spectrum = np.abs(np.fft.rfft(left[0])) ** 2 / N
    assert spectrum[round(N / period) - 1 : round(N / period) + 2].max() < 8
    assert np.corrcoef(left[0], noise[0])[0, 1] > 0.9


def test_noise_without_a_rhythm_loses_little() -> None:
    rows = np.random.default_rng(2).normal(size=(20, N))
    kept = [np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(without_rhythm(rows), rows, strict=True)]
    assert min(kept) > 0.9 and np.median(kept) > 0.95
    assert (without_rhythm(np.zeros((1, 100))) == 0).all()


def sine(rng: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * (AT / 20 + rng.uniform(size=(10, 1))))


def sawtooth(rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1, 1], (10, 1)) * (AT % 47) / 47


@pytest.mark.parametrize("rhythm", [sine, sawtooth])
def test_an_epoch_in_both_is_no_coupling(
    rhythm: Callable[[np.random.Generator], np.ndarray],
) -> None:
    rng, p = np.random.default_rng(3), []
    for _ in range(15):
        x, y = (rhythm(rng) + rng.normal(size=(10, N)) for _ in "xy")
        p.append(np.diagonal(couplings_table(x, y)["p"]))
    # Without the removal .17 and .55; three standard errors of 150 pairs at .05 are .053.
    assert np.mean(np.concatenate(p) <= 0.05) <= 0.05 + 0.053
