"""Bands of healthy runs: false alarms at the stated rate, planted departures found."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ndt_offline.relate.bands import deviations, fit_band, outside

SIMULATIONS = 2000 if os.environ.get("NDT_SLOW") else 150


def runs(random: np.random.Generator, n: int, kind: str, k: int = 4, t: int = 120) -> np.ndarray:
    """Trajectories around a common course: [run, series, step]."""
    course = 3 + np.sin(np.linspace(0, 3, t)) * np.arange(1, k + 1)[:, None] / k
    noise = random.standard_normal((n, k, t))
    if kind == "persistent":
        for i in range(1, t):
            noise[..., i] += 0.95 * noise[..., i - 1]
    if kind == "shared":  # what is common to a run's series dominates
        noise = 0.2 * noise + 3 * random.standard_normal((n, 1, 1))
    if kind == "heavy":
        noise = random.standard_t(3, (n, k, t))
    if kind == "growing":
        noise *= np.linspace(0.05, 1, t)
    return np.exp(course + 0.1 * noise)


@pytest.mark.parametrize("n", [5, 10, 19])
@pytest.mark.parametrize("kind", ["white", "persistent", "shared", "heavy", "growing"])
def test_false_alarms_keep_the_stated_rate(kind: str, n: int) -> None:
    random = np.random.default_rng([n, len(kind)])
    alarms = rate = 0.0
    for _ in range(SIMULATIONS):
        sample = runs(random, n + 1, kind)
        band = fit_band(sample[:n], alarm=0.1)
        alarms += np.abs(outside(band, sample[n])).max() > band.critical
        rate = band.rate
    assert rate == pytest.approx(max(0.1, 1 / (n + 1)), abs=1 / (n + 1))
    assert rate <= max(0.1, 1 / (n + 1)) + 1e-12
    assert alarms / SIMULATIONS <= rate + 3 * (rate * (1 - rate) / SIMULATIONS) ** 0.5


def test_a_planted_departure_is_found_where_it_is() -> None:
    random = np.random.default_rng(5)
    hits = 0
    for _ in range(100):
        sample = runs(random, 21, "persistent")
        band = fit_band(sample[:20], alarm=0.1)
        # Eight between-run deviations of one series, from step 70 on (sd .1 / (1 - .95^2)^.5).
        sample[20, 2, 70:] *= np.exp(8 * 0.1 / (1 - 0.95**2) ** 0.5)
        away = np.abs(outside(band, sample[20])) > band.critical
        first = np.argwhere(away.any(axis=0))[:1]
        hits += bool(away[2].any() and 65 <= first[0, 0] <= 80)
    assert hits >= 90


def test_edges_and_the_rule_agree() -> None:
    random = np.random.default_rng(1)
    sample = runs(random, 12, "white")
    band = fit_band(sample[:10])
    beyond = np.abs(outside(band, sample[11])) > band.critical
    np.testing.assert_array_equal(beyond, (sample[11] < band.low) | (sample[11] > band.high))
    assert band.runs == 10 and band.rate == pytest.approx(1 / 11)


def test_the_critical_value_is_the_order_statistic_of_plain_loops() -> None:
    """One series whose runs are shifted copies: centre, spread and scores by hand."""
    shifts = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    band = fit_band(np.exp(shifts)[:, None, None] * np.ones((1, 1, 50)), alarm=0.4)
    scores = []
    for i in range(5):
        others = np.delete(shifts, i)
        scores.append(abs(shifts[i] - others.mean()) / others.std(ddof=1))
    assert band.critical == pytest.approx(sorted(scores)[3])  # ceil(.6 x 6) = 4th
    assert band.rate == pytest.approx(1 - 4 / 6)


def test_what_is_missing() -> None:
    random = np.random.default_rng(2)
    sample = runs(random, 8, "white")
    healthy, new = sample[:7].copy(), sample[7].copy()
    healthy[3, 1, 40:50] = np.nan  # no band there
    new[1, 42] = 1e9
    new[2, 90] = np.nan  # but here the run alone has no value
    found = outside(fit_band(healthy), new)
    assert found[1, 42] == 0 and np.isinf(found[2, 90])
    same = np.full((4, 2, 30), 2.0)
    band = fit_band(same)
    assert (np.abs(outside(band, same[0])) <= band.critical).all()
    assert (np.abs(outside(band, 1.01 * same[0])) > band.critical).all()
    with pytest.raises(ValueError, match="3 are needed"):
        fit_band(same[:2])
    assert deviations(np.zeros((1, 1)), np.ones((1, 1)), np.array([[2.0]])) == 2
