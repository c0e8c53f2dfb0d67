"""Signatures of failure: planted ones are found where they begin, healthy trainings meet none."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ndt_offline.relate import signatures
from ndt_offline.relate.signatures import Series

DRAWS = 200 if os.environ.get("NDT_SLOW") == "1" else 25
N = 400


def noise(random: np.random.Generator, n: int = N, memory: float = 0.5) -> Series:
    """AR(1) noise with unit variance."""
    values = random.standard_normal(n)
    for i in range(1, n):
        values[i] = memory * values[i - 1] + np.sqrt(1 - memory**2) * values[i]
    return values


def loss(random: np.random.Generator, n: int = N, memory: float = 0.5) -> Series:
    """A healthy loss: it falls by a factor of 8 to 100, its noise in proportion."""
    level = 2.3 * np.exp(-np.arange(n) / n * random.uniform(4, 30)) + random.uniform(0.02, 0.3)
    return level * (1 + 0.1 * noise(random, n, memory))


def gradient(random: np.random.Generator, n: int = N) -> Series:
    fall = 0.2 + 2 * np.exp(-3 * np.arange(n) / n)
    return fall * np.exp(0.4 * noise(random, n))


def dimension(random: np.random.Generator, n: int = N) -> Series:
    """Drifts by up to 40 % of where it began."""
    return (1 + random.uniform(-0.4, 0.6) * np.arange(n) / n) * (8 + 0.3 * noise(random, n))


def met(random: np.random.Generator, n: int, memory: float) -> list[str]:
    """The rules that one healthy training meets."""
    first, second = loss(random, n, memory), loss(random, n, memory)
    dead = np.clip(0.2 + 0.02 * noise(random, n, memory), 0, 1)
    found = {
        "diverged": signatures.diverged(~np.isfinite(first)),
        "spike": signatures.spike(first),
        "plateau": signatures.plateau(first),
        "vanishing": signatures.vanishing(gradient(random, n), first),
        "exploding": signatures.exploding(gradient(random, n)),
        "collapse": signatures.collapse(dimension(random, n)),
        "dying": signatures.dying(dead),
        "overfitting": signatures.overfitting(first, second),
    }
    assert tuple(found) == signatures.SIGNATURES
    return [name for name, at in found.items() if at is not None]


@pytest.mark.parametrize(("n", "memory"), [(80, 0.0), (400, 0.5), (400, 0.9)])
def test_healthy_trainings_meet_hardly_any(n: int, memory: float) -> None:
    random = np.random.default_rng(n + int(10 * memory))
    found = [name for _ in range(DRAWS) for name in met(random, n, memory)]
    # 1 % of the seven rules that have something to decide.
    assert len(found) <= 0.01 * 7 * DRAWS, found


def test_planted_failures_are_found_where_they_begin() -> None:
    random = np.random.default_rng(5)
    for _ in range(10):
        values = loss(random)
        values[250:270] += 3.0
        at = signatures.spike(values)
        assert at is not None and 250 <= at <= 252
        stuck = 2.3 - 0.4 * np.minimum(np.arange(N) / 40, 1) + 0.05 * noise(random)
        assert signatures.plateau(stuck) == 100
        gone = gradient(random)
        gone[200:] *= 1e-6
        gone[[150, 260, N - 3]] = np.nan  # what is missing ends nothing
        assert signatures.vanishing(gone, stuck) == 200
        assert signatures.vanishing(gone, loss(random)) is None  # learned: it may vanish
        burst = gradient(random)
        burst[300:] *= 1000
        assert signatures.exploding(burst) == 300
        flat = dimension(random)
        flat[310:] *= 0.1
        assert signatures.collapse(flat) == 310
        dead = np.where(np.arange(N) < 220, 0.1, 0.5) + 0.01 * noise(random)
        assert signatures.dying(dead) == 220


def test_overfitting_is_a_second_loss_that_turns() -> None:
    random = np.random.default_rng(6)
    t = np.arange(N) / N
    first = 2.0 * np.exp(-6 * t) * (1 + 0.02 * noise(random))
    second = (2.0 * np.exp(-6 * t) + 1.5 * np.maximum(t - 0.4, 0) + 0.3) * (
        1 + 0.02 * noise(random)
    )
    at = signatures.overfitting(first, second)
    assert at is not None and 160 < at < 300
    assert signatures.overfitting(second, second) is None  # both rise: not a gap
    assert signatures.overfitting(first, np.full(N, np.nan)) is None


@pytest.mark.parametrize("change", ["recovers", "short"])
def test_what_passes_or_is_too_short_is_none(change: str) -> None:
    random = np.random.default_rng(7)
    flat = dimension(random)
    flat[200:260] *= 0.3
    if change == "short":
        flat = flat[220:250]
    assert signatures.collapse(flat) is None


def test_no_numbers_to_the_end() -> None:
    broken = np.zeros(N, bool)
    broken[20:40] = broken[300:] = True
    assert signatures.diverged(broken) == 300
    assert signatures.diverged(np.roll(broken, -1)) is None
    lost = gradient(np.random.default_rng(9))
    lost[300:] = np.nan
    assert signatures.vanishing(lost, np.full(N, 2.3)) is None  # gone, but not small


def test_missing_values_meet_nothing() -> None:
    nothing = np.full(N, np.nan)
    assert signatures.spike(nothing) is None and signatures.exploding(nothing) is None
    random = np.random.default_rng(8)
    values = dimension(random)
    values[::7] = np.nan
    assert signatures.collapse(values) is None
