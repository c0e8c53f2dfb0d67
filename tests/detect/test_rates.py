"""Sampling rates: all offsets, matched noise thinned alike, honest about few points."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.detect import STATUS, detect, join_rates, rates_of
from ndt_offline.errors import UsageError


def test_counts_are_means_over_offsets() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=1600)
    x[700:] += 6
    steps = np.arange(1600) * 5
    rates = rates_of(x, steps, draws=1, every=(5, 10, 25, 100, 500, 7, 1))
    assert rates.every.tolist() == [5, 10, 25, 100, 500]
    assert rates.points.tolist() == [1600, 800, 320, 80, 16]
    by_hand = [len(detect(x[o::5], steps[o::5])) for o in range(5)]
    assert rates.found[2] == np.mean(by_hand)
    assert rates.spread[2] == pytest.approx(np.std(by_hand, ddof=1))
    assert rates.spread[0] == 0
    assert [STATUS[s] for s in rates.status] == ["ok", "ok", "ok", "low power", "too short"]
    assert rates.remarks[-1] == "too few points are left to tell"
    assert rates.remarks[0] == ""


def test_the_existing_rule_finds_more_at_finer_rates_in_pure_noise() -> None:
    # This is what "finer sampling finds more" is worth: matched noise does the same.
    x = np.random.default_rng(1).normal(size=1600)
    rates = rates_of(x, np.arange(1600) * 5, detector="zscore", draws=4, every=(5, 50))
    assert rates.found[0] > 4 * rates.found[1]
    assert rates.matched[0] > 4 * rates.matched[1]


def test_pooling() -> None:
    series = np.random.default_rng(2).normal(size=(3, 400))
    parts = [rates_of(x, np.arange(400), detector="zscore", every=(1, 2), draws=2) for x in series]
    pooled = join_rates(parts)
    assert pooled.found[1] == pytest.approx(sum(p.found[1] for p in parts))
    assert pooled.spread[1] == pytest.approx(np.sqrt(sum(p.spread[1] ** 2 for p in parts)))
    with pytest.raises(UsageError, match="different cadence"):
        join_rates([parts[0], rates_of(series[0], detector="zscore", every=(1,), draws=1)])
    with pytest.raises(UsageError, match="one point"):
        rates_of([1.0], [0])
