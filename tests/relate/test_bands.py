"""Bands of healthy runs: the stated rate of false alarms, and planted departures."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.errors import UsageError
from ndt_offline.relate.bands import departure


def walks(rng: np.random.Generator, runs: int) -> np.ndarray:
    """Series of 60 steps: a trending walk, heavy-tailed noise, one nearly constant."""
    trend = np.log1p(np.arange(60)) * (1 + 0.2 * rng.standard_normal((runs, 1)))
    walk = trend + np.cumsum(0.1 * rng.standard_normal((runs, 60)), 1)
    tails = rng.standard_t(2, (runs, 60)) * np.linspace(0.01, 3, 60)
    flat = 1 + 1e-3 * rng.standard_normal((runs, 60))
    return np.stack([walk, tails, flat], 1)


@pytest.mark.parametrize("healthy", [4, 9])
def test_false_alarms_come_at_the_stated_rate(healthy: int) -> None:
    rng = np.random.default_rng(healthy)
    trials = 600
    runs = [walks(rng, healthy + 1) for _ in range(trials)]
    found = [departure(r[:-1], r[-1]) for r in runs]
    rate = np.mean([f.left for f in found])
    expected = 1 / (healthy + 1)
    assert abs(rate - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)
    # p is uniform on 1/(n+1), ..., 1.
    ranks = np.bincount([round(f.p * (healthy + 1)) for f in found], minlength=healthy + 2)[1:]
    spread = np.sqrt(trials * expected * (1 - expected))
    assert np.all(np.abs(ranks - trials * expected) < 4.5 * spread)


def test_a_single_departure_is_found_where_it_is() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(50):
        runs = walks(rng, 10)[:, [0, 2]]
        spread = runs[:-1, 0].std(0)
        runs[-1, 0, 40:] = runs[:-1, 0].mean(0)[40:] + 12 * spread[40:]
        found = departure(runs[:-1], runs[-1])
        where = np.flatnonzero(found.outside[0])
        hits += bool(found.left and len(where) and where.min() >= 40)
    assert hits >= 45


def test_scale_and_place_do_not_matter() -> None:
    runs = walks(np.random.default_rng(1), 8)
    one = departure(runs[:-1], runs[-1])
    other = departure(1e3 * runs[:-1] - 7, 1e3 * runs[-1] - 7)
    assert one.p == other.p
    np.testing.assert_allclose(one.deviation[:2], other.deviation[:2], rtol=1e-6)
    shuffled = departure(runs[[3, 1, 0, 2, 6, 5, 4]], runs[-1])
    np.testing.assert_allclose(one.deviation, shuffled.deviation, rtol=1e-9)


def test_what_is_not_finite() -> None:
    runs = walks(np.random.default_rng(2), 8)
    runs[-1, 1, 30:] = np.nan
    found = departure(runs[:-1], runs[-1])
    assert found.left and np.isinf(found.deviation[1, 30:]).all()
    runs[:, 1, :] = np.nan  # nobody has it: nothing is compared
    assert departure(runs[:-1], runs[-1]).deviation[1].max() == 0
    same = np.ones((6, 2, 20))
    none = departure(same[:-1], same[-1])
    assert none.p == 1 and not none.left
    moved = same[-1].copy()
    moved[0, 3] = 1.1
    assert departure(same[:-1], moved).left


def test_too_few_runs_make_no_band() -> None:
    with pytest.raises(UsageError, match="at least 4"):
        departure(np.zeros((3, 1, 9)), np.zeros((1, 9)))
