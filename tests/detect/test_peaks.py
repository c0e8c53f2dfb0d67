"""Stored peaks answer every threshold as a new run would; matched noise is like its series."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ndt_offline.detect import (
    counts,
    detect,
    find_peaks,
    join_peaks,
    matched_noise,
    transitions,
)
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.peaks import Peaks
from ndt_offline.detect.surrogates import stable
from ndt_offline.errors import UsageError

N = 800


def some_series(k: int) -> np.ndarray:
    rng = np.random.default_rng(k)
    x = NOISES[("white", "t5 in AR .7", "walk", "GARCH")[k % 4]](rng, N)
    x[300:] += rng.choice((-1, 1)) * rng.uniform(2, 9)
    x[500:] -= rng.choice((-1, 1)) * rng.uniform(2, 9)
    return x


@pytest.fixture(scope="module")
def peaks() -> Peaks:
    return join_peaks(find_peaks(some_series(k), draws=3, seed=(1, k)) for k in range(8))


@pytest.mark.parametrize("detector", ["steps", "zscore"])
def test_every_threshold_from_the_columns_equals_a_run(detector: str) -> None:
    low = 4.0 if detector == "steps" else 2.0
    for k in range(6):
        x, steps = some_series(k), np.arange(N) * 5
        stored = find_peaks(x, steps, detector, draws=0)
        for threshold in np.arange(low, low + 6, 0.37):
            again = detect(x, steps, detector, threshold=threshold)
            assert repr(transitions(stored, threshold)) == repr(again)


def test_matched_counts_equal_runs_on_the_draws() -> None:
    for detector, level in (("steps", 4.2), ("zscore", 2.7)):
        for k in (1, 2):
            x, steps = some_series(k), np.arange(N)
            stored = find_peaks(x, steps, detector, draws=4, seed=(9, k))
            noise = matched_noise(x, steps, draws=4, seed=(9, k))
            each = [len(detect(row, steps, detector, threshold=level)) for row in noise]
            assert counts(stored, level).matched[0, 0] == np.mean(each)


def test_counts_equal_counting(peaks: Peaks) -> None:
    groups = np.array([0, 1, 0, 1, 2, 2, 0, 1])
    levels = [6.0, 4.0, 4.7, 5.2]
    table = counts(peaks, levels, groups)
    for g in range(3):
        for j, level in enumerate(levels):
            by_hand = sum(len(transitions(peaks, level, k)) for k in np.flatnonzero(groups == g))
            assert table.observed[g, j] == by_hand
    assert counts(peaks).thresholds.tolist() == [4.7]
    assert counts(peaks).observed[0, 0] == counts(peaks, 4.7, groups).observed.sum()
    assert np.all(table.low <= table.matched)
    assert np.all(table.matched <= table.high)
    assert table.draws == 3


def test_matched_noise_far_above_the_series_is_warned_of() -> None:
    one = find_peaks(np.random.default_rng(0).normal(size=400), draws=10)
    many = 40
    fake = Peaks(
        one.detector,
        one.params,
        {k: v[:0] for k, v in one.found.items()},
        {
            "series": np.zeros(many, np.int64),
            "draw": np.arange(many) % 10,
            "drops_out": np.full(many, 6.0),
            "Tt": np.full(many, 6.0),
            "nu": np.full(many, np.inf),
        },
        one.series,
    )
    table = counts(fake, [5.0, 7.0])
    assert table.matched.tolist() == [[4.0, 0.0]]
    assert table.warnings.tolist() == [[True, False]]


def test_no_draws_is_not_zero() -> None:
    table = counts(find_peaks(np.zeros(400)), [4.0, 5.0])
    assert np.isnan(table.matched).all()
    assert table.observed.tolist() == [[0, 0]]


def test_below_the_floor_is_refused(peaks: Peaks) -> None:
    with pytest.raises(UsageError, match="below 4, the lowest"):
        counts(peaks, [3.0, 5.0])
    low = find_peaks(some_series(0), detector="zscore", threshold=1.0, draws=0)
    assert counts(low, [1.0]).observed[0, 0] == len(
        detect(some_series(0), detector="zscore", threshold=1.0)
    )


def test_peaks_travel_between_processes(peaks: Peaks) -> None:
    other = pickle.loads(pickle.dumps(peaks))
    for name in peaks.found:
        np.testing.assert_array_equal(other.found[name], peaks.found[name])
        assert peaks.found[name].dtype.kind in "if"


def test_a_seed_gives_the_same_noise_and_another_does_not() -> None:
    x, at = some_series(1), np.arange(N)
    first = matched_noise(x, at, 3, (5, 1))
    np.testing.assert_array_equal(first, matched_noise(x, at, 3, (5, 1)))
    assert not np.array_equal(first, matched_noise(x, at, 3, (5, 2)))
    assert not np.array_equal(first[0], first[1])


def test_matched_noise_has_the_correlation_and_volatility_but_not_the_step() -> None:
    rng = np.random.default_rng(3)
    volatility = np.where(np.arange(1600) < 800, 3.0, 1.0)
    e = rng.normal(size=1600) * volatility
    x = np.zeros(1600)
    for t in range(1, 1600):
        x[t] = 0.5 * x[t - 1] + e[t]
    x[1200:] += 25.0
    draws = matched_noise(x, np.arange(1600), 20)
    fast = np.diff(draws, axis=1)
    ratio = fast[:, 100:700].std() / fast[:, 900:1500].std()
    assert ratio == pytest.approx(3.0, rel=0.15)

    def lag_one(rows: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(r[1:], r[:-1])[0, 1] for r in np.diff(rows, axis=1)]))

    assert lag_one(draws) == pytest.approx(lag_one(np.delete(x, range(1195, 1205))[None]), abs=0.06)
    before, after = draws[:, 1100:1190].mean(), draws[:, 1210:1300].mean()
    assert abs(after - before) < 2.0


def test_matched_noise_keeps_what_was_not_tested() -> None:
    x = np.random.default_rng(4).normal(size=700)
    x[[10, 400]] = np.nan
    x[200:300] = 7.0
    draws = matched_noise(x, np.arange(700), 2)
    assert np.isnan(draws[:, [10, 400]]).all()
    assert (draws[:, 200:300] == 7.0).all()
    assert matched_noise(x[:60], np.arange(60), 2).shape == (0, 60)


def test_an_explosive_fit_is_pulled_back() -> None:
    phi = np.r_[1.2, np.zeros(7)]
    assert np.abs(np.roots(np.r_[1, -stable(phi)])).max() <= 0.9996
    calm = np.r_[0.5, np.zeros(7)]
    assert stable(calm) is calm


def test_unusable_series_have_a_status_and_no_rows() -> None:
    joined = join_peaks(
        [find_peaks(some_series(0), draws=2), find_peaks(np.zeros(50)), find_peaks(some_series(1))]
    )
    assert joined.series["status"].tolist() == [0, 2, 0]
    assert joined.series["draws"].tolist() == [2, 0, 10]
    assert set(joined.found["series"].tolist()) <= {0, 2}
    with pytest.raises(UsageError, match="no peaks"):
        join_peaks([])
