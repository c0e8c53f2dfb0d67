"""The article's verdict can say yes as well as no."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(PIPELINES), *sys.path])
    return importlib.import_module("article_claims")


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(PIPELINES), *sys.path])
    return importlib.import_module("article_statistics")


def test_interval_is_students(statistics: ModuleType) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.1, 0.4, 0.2, 0.35]
    low, mean, high = statistics.interval(values)
    exact = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    np.testing.assert_allclose((low, mean, high), (exact[0], np.mean(values), exact[1]), rtol=1e-9)
    assert np.isnan(statistics.interval([0.3])[0]) and statistics.interval([0.3])[1] == 0.3


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.91, 0.92, 0.93], "holds"),
        ([0.1, 0.11, 0.12], "does not hold"),
        ([0.2, 0.9, 0.95], "depends on the seed"),
        ([0.9], "holds"),
        ([0.1], "does not hold"),
    ],
)
def test_verdicts_follow_the_interval(
    statistics: ModuleType, values: list[float], verdict: str
) -> None:
    assert statistics.judged(values, 0.8, 1.0) == verdict


def test_three_phases_are_seen_where_they_are(claims: ModuleType) -> None:
    steps = np.arange(0, 8005, 5)
    planted = np.interp(steps, [0, 300, 5000, 8000], [10.0, 5.0, 8.0, 8.0])
    assert claims._three(steps, planted)
    assert not claims._three(steps, np.linspace(5.0, 8.0, len(steps)))
    assert not claims._three(steps, np.interp(steps, [0, 300, 8000], [10.0, 5.0, 12.0]))


def test_rho_is_spearmans_and_noise_fires_as_often_as_known(
    claims: ModuleType, statistics: ModuleType
) -> None:
    x = np.array([1.0, 5.0, 2.0, np.nan, 9.0])
    assert statistics.rho(x, np.array([2.0, 6.0, 3.0, 1.0, 10.0])) == pytest.approx(1.0)
    assert statistics.lowest([x, -x], np.arange(5.0)) == pytest.approx(-0.8)
    # About 5 per 1000 points of white noise at z = 3, as the tool's rule is known to give.
    assert 6.0 <= claims.noise_jumps(1, 1601, draws=40) <= 10.0
