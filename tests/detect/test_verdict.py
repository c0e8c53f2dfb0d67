"""The verdict on the count: silent about smooth series, right about noise and about steps."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.detect import Peaks, counts, find_peaks, join_peaks
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.noise import autoregress
from ndt_offline.detect.trust import on_grid
from ndt_offline.detect.verdict import judge

N = 201


def power_law(rng: np.random.Generator) -> np.ndarray:
    """A falling curve as smooth as full-batch training gives it."""
    return (1 + np.arange(N) / 3) ** -0.7 + 1e-4 * np.cumsum(rng.normal(size=N))


def smooth(rng: np.random.Generator) -> np.ndarray:
    noise = autoregress(rng.normal(size=4 * N + 500), (1.9, -0.905))[500:]
    return 3 * np.exp(-np.arange(4 * N) / (0.4 * N)) + 1e-3 * noise


def coarse(rng: np.random.Generator) -> np.ndarray:
    return np.round(0.5 * autoregress(rng.normal(size=2100), (0.95,))[500:]) / 16


def peaks_of(series: list[np.ndarray]) -> Peaks:
    return join_peaks(find_peaks(x, seed=(0, i)) for i, x in enumerate(series))


def test_series_that_are_too_short_are_not_judged() -> None:
    peaks = peaks_of([np.random.default_rng(i).normal(size=40) for i in range(3)])
    found = judge(peaks, np.ones(3, bool))
    assert not found.series.any() and found.observed == 0 and np.isnan(found.high)


@pytest.mark.parametrize("kind", [power_law, smooth, coarse])
def test_series_without_a_step_are_not_said_to_jump(kind: object) -> None:
    series = [kind(np.random.default_rng([3, i])) for i in range(12)]  # type: ignore[operator]
    peaks = peaks_of(series)
    whole = counts(peaks)
    assert whole.observed[0, 0] > whole.high[0, 0]  # what counting all of them would claim
    judged = judge(peaks, np.array([not on_grid(x) for x in series]))
    assert judged.observed <= judged.high
    assert judged.series.sum() <= 4


def test_ordinary_noise_is_judged_and_is_noise() -> None:
    more = 0
    for seed in range(6):
        rng = np.random.default_rng([3, seed])
        series = [NOISES[k](rng, N) for k in ("white", "AR .9", "walk") for _ in range(4)]
        judged = judge(peaks_of(series), np.ones(12, bool))
        assert judged.series.sum() >= 9
        more += judged.observed > judged.high
    assert more <= 1


def test_steps_are_more_than_noise_gives() -> None:
    rng = np.random.default_rng(4)
    step = 5.0 * (np.arange(N) > 100)
    series = [NOISES["white"](rng, N) + step * (i < 3) for i in range(12)]
    series += [power_law(rng) for _ in range(4)]
    judged = judge(peaks_of(series), np.ones(16, bool))
    assert judged.series[:12].all() and not judged.series[12:].any()
    assert judged.observed == 3 > judged.high


def test_each_draw_is_counted_in_the_series_that_the_others_choose() -> None:
    """Forty series, a tenth of which shows one strong peak in one draw each."""
    number, draw = np.array([1, 5, 9, 30]), np.array([0, 0, 3, 7])
    columns = {"T": np.full(4, 7.0), "Tt": np.full(4, 7.0), "nu": np.full(4, np.inf)}
    matched = {"series": number, "draw": draw, "drops_out": np.full(4, 7.0), **columns}
    found = {name: column[:0] for name, column in matched.items()}
    about = {"status": np.zeros(40), "points": np.full(40, N), "draws": np.full(40, 10)}
    judged = judge(Peaks("steps", {"threshold": 4.7}, found, matched, about), np.ones(40, bool))
    assert judged.series.sum() == 36  # all four are left out, and yet
    assert judged.matched == pytest.approx(0.4)  # four in ten draws is what a run would show
    # P(one or more | 1 + 4, share 1/11) is .38, of two or more of 2 + 4 .1, of three of 3 + 4 .02
    assert judged.high == pytest.approx(2.0)
