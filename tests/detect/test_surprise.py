"""Events beside matched noise: the rank written out, trust, and series on grids."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from ndt_offline.detect import Peaks, find_events, find_peaks, join_peaks, matched_noise
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.battery.nulls import NULLS
from ndt_offline.detect.battery.positives import POSITIVES
from ndt_offline.detect.surprise import events_beside_noise
from ndt_offline.detect.trust import grid_step, on_grid, trusted

N = 400
STEPS = np.arange(N) * 5
FULL = os.environ.get("NDT_SLOW") == "1"


def made(found: list[tuple[int, int, float]], matched: list[tuple[int, int, float]]) -> Peaks:
    """Twelve series. Found peaks are (series, index, T), matched ones (series, draw, T)."""

    def table(rows: list[tuple[int, int, float]], name: str) -> dict[str, np.ndarray]:
        number, second, T = np.array(rows, float).reshape(-1, 3).T
        at = second if name == "index" else np.full(len(T), 100.0)
        whole = {"series": number.astype(int), name: second.astype(int), "index": at.astype(int)}
        return whole | {"T": T, "Tt": T, "drops_out": np.abs(T), "nu": np.full(len(T), np.inf)}

    about = {"status": np.zeros(12, np.uint8), "points": np.full(12, N), "draws": np.full(12, 10)}
    return Peaks("steps", {"threshold": 4.7}, table(found, "index"), table(matched, "draw"), about)


def test_an_event_beside_quiet_noise_has_the_smallest_p_that_ten_draws_can_show() -> None:
    events, tested = events_beside_noise(made([(3, 200, 9.0)], []), STEPS, np.ones(12, bool))
    assert [e.p for e in events] == [pytest.approx(1 / 11)]
    assert events[0].series == (3,)
    assert len(tested) == 12


def test_series_that_are_left_out_keep_the_numbers_of_the_others() -> None:
    able = np.arange(12) >= 5
    peaks = made([(3, 200, 9.0), (7, 200, -9.0), (9, 203, 8.0)], [])
    (event,), tested = events_beside_noise(peaks, STEPS, able)
    assert event.series == (7, 9)
    assert tested.tolist() == list(range(5, 12))


def test_a_draw_that_goes_as_far_takes_the_event_away() -> None:
    # One false peak of T = 9.5 in 10 draws: left out of the others' judgement, its series is
    # trusted in its own draw; so noise does give such an event, once in eleven besides itself.
    peaks = made([(3, 200, 9.0)], [(5, 4, 9.5)])
    assert not trusted(peaks)[5] and trusted(peaks, but=4)[5]
    assert events_beside_noise(peaks, STEPS, np.ones(12, bool))[0] == []  # p 2/11


def test_without_enough_draws_there_is_no_event() -> None:
    peaks = made([(3, 200, 9.0)], [])
    peaks.series["draws"][:] = 8
    assert events_beside_noise(peaks, STEPS, np.ones(12, bool))[0] == []
    peaks.series["draws"][:] = 0
    assert len(events_beside_noise(peaks, STEPS, np.ones(12, bool))[1]) == 0


def test_trust_is_lost_by_one_strong_peak_or_by_many_weak_ones() -> None:
    expected = 10 * N / 1000 * np.exp(9.30 - 2.38 * 4.0)  # 3.2 of |T| >= 4
    few, many = int(expected), int(expected + 3 * expected**0.5) + 1
    weak = [(1, k % 10, 4.1) for k in range(few)] + [(2, k % 10, 4.1) for k in range(many)]
    good = trusted(made([], [*weak, (4, 0, 5.5), (6, 0, -7.0)]))
    assert np.flatnonzero(~good).tolist() == [2, 6]


def test_a_run_of_series_whose_noise_jumps_has_no_events() -> None:
    """What a run's own matched noise holds is noise: it must not hold events."""
    rng = np.random.default_rng(5)
    t = np.arange(201)
    series = [
        3 * np.exp(-t / 25) + 0.003 * NOISES["AR .9"](rng, 201) * np.exp(-t / 90) for _ in range(12)
    ] + [NOISES["t5 in walk"](rng, 201) for _ in range(12)]
    steps, able = np.arange(201), np.ones(24, bool)
    peaks = join_peaks(find_peaks(x, steps, seed=(0, i)) for i, x in enumerate(series))
    noise = [matched_noise(x, steps, 6, seed=(1, i)) for i, x in enumerate(series)]
    false = plain = 0
    for draw in range(6):
        drawn = join_peaks(find_peaks(x[draw], steps, draws=0) for x in noise)
        plain += bool(find_events(drawn, steps))
        false += bool(events_beside_noise(replace(peaks, found=drawn.found), steps, able)[0])
    assert plain >= 3  # the test would not fail otherwise
    assert false <= 1


@pytest.mark.slow
def test_groups_and_lone_steps_are_found_and_noise_is_not() -> None:
    """Ten groups of five series; a step in one group; a lone step in white noise or a walk."""
    runs = 40 if FULL else 2
    kinds, n = ("white", "AR .5", "AR .9", "walk"), 800
    steps, able, false, got, lone = np.arange(n), np.ones(50, bool), 0, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng([23, seed])
        series = []
        for group in range(10):
            common = NOISES[kinds[group % 4]](rng, n)
            series += [common + 0.3 * NOISES[kinds[group % 4]](rng, n) for _ in range(5)]
        parts = [find_peaks(x, steps, seed=(seed, i)) for i, x in enumerate(series)]
        false += bool(events_beside_noise(join_peaks(parts), steps, able)[0])
        group = 4 * int(rng.integers(2))  # of white noise
        for i in range(5 * group, 5 * group + 5):
            moved = series[i] + 2.5 * (steps >= 400)
            parts[i] = find_peaks(moved, steps, seed=(seed, i))
        events, _ = events_beside_noise(join_peaks(parts), steps, able)
        got += any(abs(e.index - 400) <= 10 and len(e.series) >= 4 for e in events)
        x, (where,) = POSITIVES[("white", "walk")[seed % 2]](rng, n, 5.0)
        parts[5 * group] = find_peaks(x, steps, seed=(seed, 99))
        events, _ = events_beside_noise(join_peaks(parts), steps, able)
        lone += any(abs(e.index - where) <= 10 for e in events)
    assert false <= 0.1 * runs + 2 * (0.09 * runs) ** 0.5
    assert got >= 0.9 * runs
    assert lone >= 0.9 * runs - 1


def test_values_on_a_coarse_grid_are_told_from_others() -> None:
    rng = np.random.default_rng(0)
    slow = NOISES["AR .9"](rng, N)
    assert on_grid(np.round(slow) / 16)
    assert on_grid(np.round(slow).astype(np.float32) / np.float32(1000))
    assert on_grid(1e3 + np.round(slow) * 0.25)
    assert on_grid(np.round(1000 * slow))  # whole numbers, however fine
    assert grid_step(np.round(slow) / 16) == pytest.approx(1 / 16)
    holed = np.where(rng.random(N) < 0.1, np.nan, np.round(slow) / 7)
    assert grid_step(holed) == pytest.approx(1 / 7)
    assert not on_grid(np.round(1000 * slow) / 7)  # a fine grid does no harm
    for name in ("white", "walk", "decays", "t3"):
        assert not on_grid(NULLS[name](rng, N))
        assert not on_grid(NULLS[name](rng, N).astype(np.float32))
