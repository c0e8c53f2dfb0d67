"""The z-score rule against a plain loop, point for point."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.detect import detect
from ndt_offline.detect.rolling import crossings


def plain(values: np.ndarray, threshold: float, window: int = 50, least: int = 20) -> list[int]:
    found = []
    for i in range(least, len(values)):
        before = values[max(0, i - window) : i]
        spread = np.std(before)
        if spread < 1e-10:
            continue
        if abs((values[i] - np.mean(before)) / spread) > threshold:
            found.append(i)
    return found


def series() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    white = rng.normal(size=400)
    flat = np.full(400, 123456789.123)
    flat[200:] += 1.0
    huge = white.copy()
    huge[150] = 1e9
    holes = white.copy()
    holes[[90, 300]] = np.nan, np.inf
    return {
        "white": white,
        "walk": np.cumsum(white),
        "offset": white * 1e-3 + 1e8,
        "offset to the last digits": white * 1e-7 + 1e8,
        "near the flat limit": white * 1e-10,
        "flat": flat,
        "outlier": huge,
        "holes": holes,
        "grid": np.round(white),
        "short": white[:19],
        "one window": white[:50],
        "one more": white[:51],
    }


@pytest.mark.parametrize("name", series())
@pytest.mark.parametrize("threshold", [1.0, 2.0, 3.0])
def test_the_same_points_as_the_loop(name: str, threshold: float) -> None:
    values = series()[name]
    with np.errstate(all="ignore"):
        expected = plain(values, threshold)
    assert [t.index for t in detect(values, detector="zscore", threshold=threshold)] == expected


def test_a_threshold_that_is_hit_exactly_is_not_crossed() -> None:
    # Window of 0s and 2s has mean 1, SD 1: the value 4 has z = 3 exactly.
    values = np.array([0.0, 2.0] * 40 + [4.0])
    assert plain(values, 3.0) == []
    assert detect(values, detector="zscore", threshold=3.0) == []
    assert [t.index for t in detect(values, detector="zscore", threshold=2.999999)] == [80]


def test_many_series_at_once_and_other_windows() -> None:
    values = np.random.default_rng(3).standard_t(3, size=(37, 300))
    for window, least in ((50, 20), (7, 3), (64, 64), (33, 40)):
        rows, points, _ = crossings(values, 2.5, window, least)
        for k in range(len(values)):
            assert points[rows == k].tolist() == plain(values[k], 2.5, window, least)


def test_steps_are_training_steps() -> None:
    values = np.r_[np.random.default_rng(0).normal(size=100), 50.0]
    (last,) = detect(values, np.arange(101) * 5, detector="zscore", threshold=10.0)
    assert (last.index, last.step) == (100, 500)
