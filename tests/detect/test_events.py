"""Events: the combination rule written out, grouping, marks."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.detect import Peaks, find_events, find_peaks, join_peaks, mark_events
from ndt_offline.errors import UsageError

N = 1600
STEPS = np.arange(N) * 5


def made(peaks: list[tuple[int, int, float]], series: int = 50, nu: float = np.inf) -> Peaks:
    """Peaks given as (series, index, T)."""
    number, index, T = (np.array(c) for c in zip(*peaks, strict=True)) if peaks else ([], [], [])
    found = {
        "series": np.array(number, np.int64),
        "index": np.array(index, np.int64),
        "T": np.array(T, np.float64),
        "Tt": np.array(T, np.float64) * 0.7,
        "nu": np.full(len(index), nu),
    }
    table = {"status": np.zeros(series, np.uint8)}
    return Peaks("steps", {"threshold": 4.7}, found, {}, table)


def rule(T: list[float], series: int) -> float:
    p = np.minimum(21 / 1000 * np.exp(9.30 - 2.38 * np.abs(T)), 0.5)
    return (0.5 - np.arctan(np.tan((0.5 - p) * np.pi).sum() / series) / np.pi) * N / 21


def test_the_rule() -> None:
    (event,) = find_events(made([(3, 700, 6.8), (9, 704, -6.0), (20, 695, 5.5)]), STEPS)
    assert event.p == pytest.approx(rule([6.8, 6.0, 5.5], 50), rel=1e-9)
    assert (event.index, event.step) == (700, 3500)
    assert event.series == (3, 9, 20)
    assert event.T == (6.8, -6.0, 5.5)
    assert event.at == (3500, 3520, 3475)


def test_a_lone_step_among_fifty_needs_about_six_point_seven() -> None:
    assert find_events(made([(0, 700, 6.6)]), STEPS) == []
    assert len(find_events(made([(0, 700, 6.8)]), STEPS)) == 1
    assert len(find_events(made([(0, 700, 6.0)], series=5), STEPS)) == 1


def test_under_heavy_tails_tt_counts() -> None:
    assert find_events(made([(0, 700, 9.0)], nu=5.0), STEPS) == []
    assert len(find_events(made([(0, 700, 9.7)], nu=5.0), STEPS)) == 1
    assert len(find_events(made([(0, 700, 7.0)], nu=24.0), STEPS)) == 1


def test_the_strongest_peak_of_a_series_counts_once() -> None:
    one = find_events(made([(0, 700, 7.0)]), STEPS)
    two = find_events(made([(0, 700, 7.0), (0, 712, 6.9)]), STEPS)
    assert one[0].p <= two[0].p
    assert two[0].p == pytest.approx(rule([7.0], 50))


def test_events_apart_stay_apart_and_are_in_order() -> None:
    found = find_events(made([(0, 900, 9.0), (1, 100, 8.0), (2, 130, 7.5), (3, 905, 6)]), STEPS)
    assert [e.index for e in found] == [100, 130, 900]
    assert [e.series for e in found] == [(1,), (2,), (0, 3)]


def test_marks_beside_events() -> None:
    found = find_events(made([(0, 900, 9.0), (1, 100, 8.0)]), STEPS)
    first, second = mark_events(found, STEPS, {"epoch": [938, 4480], "lr": [520, 4560]})
    assert first.marks == ("lr",)
    assert second.marks == ("epoch",)
    assert mark_events(found, STEPS, {})[0].marks == ()


def test_a_weak_step_in_many_series_is_an_event() -> None:
    rng = np.random.default_rng(0)
    series = rng.normal(size=(12, N))
    series[:8, 600:] += 2.2
    peaks = join_peaks(find_peaks(x, STEPS, draws=0) for x in series)
    found = find_events(peaks, STEPS)
    assert len(found) == 1
    assert abs(found[0].index - 600) <= 10
    assert set(found[0].series) <= set(range(8))
    assert len(found[0].series) >= 6


def test_nothing_in_nothing() -> None:
    assert find_events(made([]), STEPS) == []
    assert find_events(made([(0, 100, 4.2), (1, 500, 4.5)]), STEPS) == []
    with pytest.raises(UsageError, match="'steps'"):
        find_events(find_peaks(np.zeros(100), detector="zscore"), np.arange(100))
