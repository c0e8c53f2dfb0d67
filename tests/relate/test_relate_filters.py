"""Windows, scales and gaps against the same thing written as a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.errors import UsageError
from ndt_offline.relate.filters import centred_mean, detrended, rolling_scale, scaled
from ndt_offline.relate.gaps import blocks, checked_steps, fill, regular_grid

RNG = np.random.default_rng(5)


def test_centred_mean_is_the_mean_of_the_window() -> None:
    x = RNG.normal(size=(2, 40))
    x[0, 7] = np.nan
    for i in range(40):
        half = min(i, 39 - i, 4)
        want = np.nanmean(x[:, i - half : i + half + 1], axis=1)
        np.testing.assert_allclose(centred_mean(x, 9)[:, i], want)


def test_detrending_takes_a_straight_line_away_to_its_very_ends() -> None:
    line = 1e6 + 3.0 * np.arange(1600)[None]
    assert np.abs(detrended(line)).max() < 1e-5  # of values of 5e6


def test_rolling_scale_is_the_median_of_the_window() -> None:
    x = RNG.normal(size=(3, 1600))
    scale = rolling_scale(x)
    for centre in (60, 800, 1000, 1530):
        want = np.median(np.abs(x[:, centre - 60 : centre + 61]), axis=1)
        np.testing.assert_allclose(scale[:, centre], want)


def test_scaling_makes_a_calming_series_even() -> None:
    x = np.exp(-np.linspace(0, 5, 1600)) * RNG.normal(size=(50, 1600))
    even = scaled(x)
    early, late = even[:, :400].std(), even[:, -400:].std()
    assert early / late == pytest.approx(1, abs=0.1)


def test_scaling_survives_dead_stretches() -> None:
    x = np.zeros((1, 500))
    x[0, :100] = RNG.normal(size=100)
    x[0, 300] = 7.0
    assert np.isfinite(scaled(x)).all()
    np.testing.assert_array_equal(scaled(x)[0, 400:], 0)


def test_gaps_become_straight_lines_and_the_clock_stays() -> None:
    keep = np.ones(10, dtype=bool)
    keep[[0, 4, 5]] = False
    x = np.where(keep, np.arange(10.0) ** 2, np.nan)[None]
    np.testing.assert_allclose(fill(x)[0, 3:7], [9, 9 + 9, 9 + 18, 36])
    assert np.isnan(fill(x)[0, 0])


def test_every_pair_is_in_exactly_one_block() -> None:
    x, y = RNG.normal(size=(5, 12)), RNG.normal(size=(3, 12))
    x[1, 3] = x[2, 3] = x[4, 0] = y[1, 7] = np.nan
    seen = np.zeros((5, 3), dtype=int)
    for block in blocks(x, y):
        for i in block.rows:
            for j in block.columns:
                seen[i, j] += 1
                np.testing.assert_array_equal(block.keep, np.isfinite(x[i]) & np.isfinite(y[j]))
    assert (seen == 1).all()


def test_a_dense_beginning_is_thinned_to_the_common_spacing() -> None:
    steps = np.concatenate([np.arange(0, 20.0), np.arange(20, 500, 5.0)])
    grid = regular_grid(steps, len(steps))
    assert grid is not None and grid.spacing == 5
    np.testing.assert_array_equal(grid.place(steps[None])[0], np.arange(0, 500, 5.0))


def test_missing_checkpoints_become_gaps() -> None:
    steps = np.delete(np.arange(0, 100, 5.0), [4, 9])
    grid = regular_grid(steps, len(steps))
    assert grid is not None
    placed = grid.place(steps[None])[0]
    assert np.flatnonzero(np.isnan(placed)).tolist() == [4, 9]


def test_steps_without_a_rhythm_are_refused_and_bad_ones_named() -> None:
    steps = np.cumsum(RNG.uniform(1, 9, 300))
    assert regular_grid(steps, 300) is None
    with pytest.raises(UsageError, match="increase"):
        checked_steps([1, 2, 2], 3)
    with pytest.raises(UsageError, match="3 samples"):
        checked_steps([1, 2], 3)
