"""Across runs: a shared clock is no coupling, a run's own course is."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.errors import UsageError
from ndt_offline.relate import across_runs
from ndt_offline.relate.cells import filtered


def runs(rng: np.random.Generator, count: int, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Decays common to all runs; `shared` is the part of each run's own wander in both."""
    t = np.arange(400) / 400
    own = filtered(0.1 * rng.normal(size=(2 * count, 400)), 0.95)
    x = 3 * np.exp(-4 * t) + own[:count]
    y = 3 * np.exp(-3 * t) + shared * own[:count] + np.sqrt(1 - shared**2) * own[count:]
    return x[:, None], y[:, None]


def test_independent_runs_keep_the_level_though_rho_is_high() -> None:
    rng = np.random.default_rng(1)
    found = [across_runs(*runs(rng, 5, 0.0))[0] for _ in range(300)]
    assert np.mean([c.rho for c in found]) > 0.7
    assert np.mean([c.p <= 0.05 for c in found]) == pytest.approx(0.05, abs=0.035)


def test_coupled_runs_are_found() -> None:
    rng = np.random.default_rng(2)
    found = [across_runs(*runs(rng, 6, 0.8))[0] for _ in range(40)]
    assert np.mean([c.p <= 0.05 for c in found]) >= 0.9
    assert np.mean([c.rho_beyond for c in found]) > 0.4


def test_five_runs_have_120_pairings_and_many_are_drawn() -> None:
    rng = np.random.default_rng(3)
    x, y = runs(rng, 5, 1.0)
    (c,) = across_runs(x, y)
    assert c.p == pytest.approx(1 / 120)
    assert c.lowest <= c.rho <= c.highest and c.runs == 5
    x, y = runs(rng, 12, 1.0)
    (c,) = across_runs(x, y)
    assert c.p == pytest.approx(1 / 5040)


def test_too_few_runs_and_constants() -> None:
    rng = np.random.default_rng(4)
    x, y = runs(rng, 5, 0.5)
    with pytest.raises(UsageError, match="4 runs"):
        across_runs(x[:4], y[:4])
    with pytest.raises(UsageError, match="fit"):
        across_runs(x, y[:, :, 1:])
    x[2] = 1.0
    assert np.isnan(across_runs(x, y)[0].p)
