"""The battery: what its generators promise, and that its verdict can tell good from bad."""

from __future__ import annotations

import os
import sys
import types

import numpy as np
import pytest

from ndt_offline.detect import validate
from ndt_offline.detect.battery.drifts import DRIFTS
from ndt_offline.detect.battery.examples import battery_examples
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.battery.nulls import NULLS, dense_start, gaps, missing
from ndt_offline.detect.battery.positives import POSITIVES, local_sigma
from ndt_offline.detect.battery.validation import match
from ndt_offline.errors import UsageError

N = 1600
FULL = os.environ.get("NDT_SLOW") == "1"


@pytest.mark.parametrize("name", NULLS)
def test_nulls_are_series_that_a_seed_repeats(name: str) -> None:
    x = NULLS[name](np.random.default_rng(1), N)
    assert x.shape == (N,)
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(x, NULLS[name](np.random.default_rng(1), N))
    assert not np.array_equal(x, NULLS[name](np.random.default_rng(2), N))


def test_noises_have_their_moments() -> None:
    rng = np.random.default_rng(0)
    for name, phi in (("AR .5", 0.5), ("AR .9", 0.9)):
        x = NOISES[name](rng, 40000)
        assert x.var() == pytest.approx(1 / (1 - phi**2), rel=0.1)
        assert np.corrcoef(x[1:], x[:-1])[0, 1] == pytest.approx(phi, abs=0.02)
    assert np.diff(NOISES["walk"](rng, 40000)).std() == pytest.approx(1, rel=0.02)
    assert NOISES["GARCH"](rng, 200000).var() == pytest.approx(1, rel=0.15)
    calm = NOISES["calming white"](rng, 40000)
    assert calm[:400].std() > 5 * calm[-10000:].std()


@pytest.mark.parametrize("name", POSITIVES)
def test_positives_plant_what_they_say(name: str) -> None:
    small, at = POSITIVES[name](np.random.default_rng(3), N, 0.0)
    large, same = POSITIVES[name](np.random.default_rng(3), N, 4.0)
    np.testing.assert_array_equal(at, same)
    jumps = np.diff(large - small)
    where = np.flatnonzero(np.abs(jumps) > 1e-9) + 1
    if name == "short ramp":
        assert abs(where.mean() - at[0]) <= 1
        assert jumps.sum() == pytest.approx(4 * np.sign(jumps.sum()))
    else:
        np.testing.assert_array_equal(where, at)
        if name in NOISES:
            assert abs(jumps).max() == pytest.approx(4 * local_sigma(name, N)[at[0]])
        assert np.diff(at).min(initial=40) >= 40


def test_local_sigma_of_known_noise() -> None:
    assert local_sigma("white", N)[800] == pytest.approx(np.sqrt(49 / 50), rel=0.02)
    # The variance of a walk within 50 points is (50 - 1/50) / 6 of its innovations'.
    assert local_sigma("walk", N)[800] == pytest.approx(np.sqrt(50 / 6), rel=0.05)


def test_drifts_move_by_about_one_without_a_jump() -> None:
    for name, drift in DRIFTS.items():
        x = drift(N)
        assert np.ptp(x) == pytest.approx(0.0 if name == "flat" else 1.0, abs=0.01)
        assert np.abs(np.diff(x)).max() < 0.03


def test_irregular_makers() -> None:
    x = np.arange(1600.0)
    for values, steps in (missing(np.random.default_rng(0), x), gaps(x), dense_start(x)):
        np.testing.assert_array_equal(values, steps)
    assert len(missing(np.random.default_rng(0), x)[0]) == pytest.approx(1280, abs=60)
    assert np.diff(gaps(x)[1]).max() == 61


def test_matching_reports_to_planted_steps() -> None:
    near, extra = match(np.array([100, 200, 300]), np.array([91, 104, 311, 500]))
    assert (near, extra) == ([4], 2)
    assert match(np.array([100]), np.array([], np.int64)) == ([], 0)


@pytest.fixture
def rules() -> None:
    module = types.ModuleType("battery_rules")
    module.silent = lambda values, steps: []
    module.eager = lambda values, steps: list(range(0, len(values), 20))
    sys.modules["battery_rules"] = module
    yield
    del sys.modules["battery_rules"]


def test_bad_detectors_are_called_bad(rules: None) -> None:
    few = {"nulls": ("white", "walk"), "positives": ("white",), "sizes": (4.0,), "seeds": 6}
    silent = validate("battery_rules:silent", **few)
    assert "cannot be believed" in silent.verdict
    assert any("finds 0% of 4-sigma steps" in line for line in silent.failures)
    eager = validate("battery_rules:eager", **few)
    assert eager.cells[0].false == pytest.approx(50.0)
    assert eager.cells[2].recall == 1.0
    assert any("50 times per 1000" in line for line in eager.failures)
    assert (
        "cannot be believed" in validate("zscore", nulls=("white",), positives=(), seeds=4).verdict
    )


def test_nulls_like_ones_own_series() -> None:
    x = np.cumsum(np.random.default_rng(0).normal(size=500))
    x[250:] += 60
    result = validate(nulls=(), positives=(), series={"mine": x}, seeds=6)
    (cell,) = result.cells
    assert (cell.name, cell.kind) == ("like mine", "null")
    assert cell.false < 1.5
    with pytest.raises(UsageError, match="cannot be tested"):
        validate(nulls=(), positives=(), series={"mine": x[:50]})


def test_a_seed_repeats_a_validation() -> None:
    few = {"nulls": ("t5 in walk",), "positives": ("AR .7",), "sizes": (2.0,), "seeds": 5}
    first = validate(**few)
    again = validate(seed=first.seed, **few)
    assert repr(again.cells) == repr(first.cells)
    assert validate(**few).seed != first.seed


@pytest.mark.slow
def test_steps_keeps_its_promises() -> None:
    seeds = 200 if FULL else 10
    result = validate("steps", seeds=seeds, seed=123, sizes=(4.0,))
    assert result.failures == [], result.verdict
    for cell in result.cells:
        if cell.kind == "steps" and cell.name != "short ramp":
            assert cell.location <= 1


def test_examples_are_the_first_series_of_the_table() -> None:
    few = {"nulls": ("t3 in walk",), "positives": ("white", "20 steps")}
    null, one, many = battery_examples(7, **few)
    cells = validate(seed=7, seeds=1, sizes=(4.0,), **few).cells
    assert [e.kind for e in (null, one, many)] == [c.kind for c in cells]
    assert len(null.reported) == round(cells[0].false * 1.6)
    for example, cell in ((one, cells[1]), (many, cells[2])):
        found = match(example.planted, example.reported)[0]
        assert len(found) == cell.recall * len(example.planted)
    assert len(many.planted) == 20


def test_progress_counts_kinds_and_says_what_is_left() -> None:
    said: list[str] = []
    validate("zscore", seeds=1, nulls=("white", "walk"), positives=(), progress=said.append)
    assert [line.split(",")[0] for line in said] == [f"{k} of 2 kinds of series" for k in (1, 2)]
    assert said[-1].endswith("about 0 s left")
