"""The `steps` detector on planted truth, on noise, and on awkward input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndt_offline.detect import STATUS, Transition, detect, find_peaks, select
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.battery.nulls import NULLS
from ndt_offline.detect.battery.positives import POSITIVES
from ndt_offline.detect.elimination import eliminate
from ndt_offline.detect.gls import fit
from ndt_offline.errors import UsageError

N = 1600


def near(found: list[Transition], at: int, within: int = 10) -> list[Transition]:
    return [t for t in found if abs(t.index - at) <= within]


@pytest.mark.parametrize("noise", ["white", "AR .5", "AR .9", "walk", "calming white", "t3"])
def test_steps_of_six_sigma_are_found_where_they_are(noise: str) -> None:
    errors = []
    for seed in range(6):
        x, (at,) = POSITIVES[noise](np.random.default_rng(seed), N, 6.0)
        (best,) = near(detect(x, np.arange(N) * 5), at)
        errors.append(abs(best.index - at))
        assert best.step == 5 * best.index
        assert best.size * (x[at] - x[at - 1]) > 0
    assert np.median(errors) == 0


def test_noise_gives_hardly_anything() -> None:
    # 0.2 false steps per 1000 points would give 12.8 in 40 series; twenty is 2 SD above that.
    names = [name for name in NULLS if name != "t3 in walk" and "t5" not in name]
    count = sum(
        len(detect(NULLS[names[k % len(names)]](np.random.default_rng(k), N))) for k in range(40)
    )
    assert count <= 20


def test_size_and_place_of_a_step_in_a_trend() -> None:
    rng = np.random.default_rng(2)
    x = 0.1 * rng.normal(size=N) + 20 * np.exp(-np.arange(N) / 300)
    x[900:] -= 1.0
    (t,) = detect(x, np.arange(N) * 5)
    assert (t.index, t.step) == (900, 4500)
    assert t.low <= 4500 <= t.high
    assert t.size_low < -1.0 < t.size_high
    assert t.sigma == pytest.approx(-10, rel=0.25)
    assert t.p < 1e-6
    assert t.drops_out >= abs(t.T) - 1e-9


def test_a_shift_stays_and_a_shock_does_not() -> None:
    rng = np.random.default_rng(3)
    shift, shock = rng.normal(size=(2, N))
    shift[700:] += 5
    shock[700:712] += 8
    assert near(detect(shift), 700)[0].retained == pytest.approx(1.0, abs=0.25)
    assert near(detect(shock), 700)[0].retained == pytest.approx(0.0, abs=0.25)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_glitches_are_not_steps_and_do_not_hide_them(width: int) -> None:
    rng = np.random.default_rng(10 + width)
    x = rng.normal(size=N)
    x[1000:] += 5.0
    for start in range(100, 900, 90):
        x[start : start + width] += 20.0
    assert [t.index for t in detect(x, threshold=5.0)] == [1000]


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3), flip=st.sampled_from((-1.0, 1.0)))
def test_units_do_not_matter(scale: float, offset: float, flip: float) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=400)
    x[200:] += 6.0
    plain = detect(x)
    other = detect(scale * (flip * x + offset))
    assert [t.index for t in other] == [t.index for t in plain] == [200]
    np.testing.assert_allclose(other[0].T, flip * plain[0].T, rtol=1e-5)
    assert other[0].size == pytest.approx(flip * scale * plain[0].size, rel=1e-5)


@pytest.mark.parametrize("noise", ["white", "t5 in AR .7", "t3 in walk"])
def test_one_path_answers_every_threshold(noise: str) -> None:
    """`drops_out` against eliminations that are stopped at a threshold."""
    rng = np.random.default_rng(8)
    x = NOISES[noise](rng, N) * 1.0
    for at in range(100, 1500, 60):
        x[at:] += 3 * rng.choice((-1, 1))
    found = fit(x, np.arange(N)).found
    assert len(found.at) > 5
    drops_out = eliminate(found).drops_out
    for threshold in np.r_[4.0:12.0:0.23]:
        active = np.arange(len(found.at))
        while len(active):
            pairs = np.ix_(active, active)
            inverse = np.linalg.inv(found.mixing[pairs])
            covariance = inverse @ found.covariance[pairs] @ inverse.T
            T = np.abs(inverse @ found.outputs[active]) / np.sqrt(np.diag(covariance))
            if T.min() >= threshold:
                break
            active = np.delete(active, T.argmin())
        assert np.flatnonzero(drops_out >= threshold).tolist() == active.tolist()


def status_of(values: np.ndarray, steps: np.ndarray | None = None) -> str:
    peaks = find_peaks(values, steps, draws=0)
    if STATUS[peaks.series["status"][0]] not in ("ok", "low power"):
        assert len(peaks.found["index"]) == 0
    return STATUS[peaks.series["status"][0]]


def test_too_little_is_said_not_guessed() -> None:
    x = np.random.default_rng(0).normal(size=N)
    x[40:] += 50
    assert status_of(x[:71]) == "too short"
    assert status_of(x[:72]) == "low power"
    assert status_of(x[:319]) == "low power"
    assert status_of(x[:320]) == "ok"
    assert status_of(np.full(N, 3.0)) == "constant"
    assert status_of(np.full(N, np.nan)) == "too short"
    assert status_of(np.zeros(0)) == "too short"
    assert detect(x[:71]) == []


def test_missing_values_are_left_out_and_a_gap_is_not_bridged() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=N)
    x[600:] += 6.0
    x[rng.choice(N, 60, replace=False)] = np.nan
    x[590:615] = np.inf
    # The step lies in the gap: nobody saw it.
    assert near(detect(x), 600, 40) == []
    x[590:615] = rng.normal(size=25) + 6.0 * (np.arange(590, 615) >= 600)
    assert len(near(detect(x), 600)) == 1


def test_a_constant_stretch_is_not_tested_and_does_no_harm() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=N)
    x[300:600] = 4.0
    x[1200:] -= 7.0
    found = detect(x)
    assert len(near(found, 1200)) == 1
    assert all(t.index >= 600 or t.index < 300 for t in found)


def test_values_on_a_grid_do_not_break_it() -> None:
    rng = np.random.default_rng(6)
    x = (rng.random(N) < 0.1).astype(float)
    x[800:] += 5
    assert len(near(detect(x), 800)) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "make",
    [
        lambda t, rng: rng.normal(size=len(t)) * 1e150,
        lambda t, rng: rng.normal(size=len(t)) * 1e-200,
        lambda t, rng: np.exp(-t / 5.0),
        lambda t, rng: np.sin(t / 3.0),
        lambda t, rng: (t % 2).astype(float),
        lambda t, rng: 1e6 + t.astype(float) ** 3,
        lambda t, rng: rng.standard_cauchy(len(t)).cumsum(),
        lambda t, rng: np.where(t == 200, 1.0, 0.0) + t / 400,
    ],
)
def test_odd_series_give_neither_warnings_nor_nan(
    make: Callable[[np.ndarray, np.random.Generator], np.ndarray],
) -> None:
    values = make(np.arange(400), np.random.default_rng(0))
    peaks = find_peaks(values, draws=2)
    assert all(np.isfinite(peaks.found[name]).all() for name in ("size", "T", "Tt", "p"))
    for name in ("segments", "baseline", "zscore"):
        detect(values, detector=name)


def test_irregular_sampling() -> None:
    rng = np.random.default_rng(5)
    dense = np.r_[np.arange(300), 300 + 10 * np.arange(500)]
    assert status_of(rng.normal(size=800), dense) == "ok"
    x = rng.normal(size=800)
    x[550:] += 6
    assert [t.step for t in detect(x, dense, threshold=6)] == [300 + 2500]
    growing = np.unique(np.round(np.geomspace(1, 1e6, 900)).astype(int))
    assert status_of(rng.normal(size=len(growing)), growing) == "irregular"
    # A change of the cadence is a border: a step on it is not seen.
    y = rng.normal(size=800)
    y[300:] += 20
    assert near(detect(y, dense), 300, 15) == []


def test_close_steps_are_told_apart() -> None:
    for seed in range(4):
        x, planted = POSITIVES["20 steps"](np.random.default_rng(seed), N, 6.0)
        found = detect(x)
        assert sum(bool(near(found, at, 3)) for at in planted) >= 18


def test_parameters_are_checked() -> None:
    with pytest.raises(UsageError, match="no parameter 'treshold'"):
        detect(np.zeros(10), treshold=3)
    with pytest.raises(UsageError, match="unknown detector"):
        detect(np.zeros(10), detector="magic")
    with pytest.raises(UsageError, match="steps must increase"):
        detect(np.zeros(3), [0, 5, 5])
    with pytest.raises(UsageError, match="3 values but 2 steps"):
        detect(np.zeros(3), [0, 5])
    for threshold in (3.9, float("nan")):
        with pytest.raises(UsageError, match="below 4"):
            detect(np.zeros(400), threshold=threshold)
        with pytest.raises(UsageError, match="below 4"):
            find_peaks(np.zeros(400), threshold=threshold)
    with pytest.raises(UsageError, match="window must be"):
        detect(np.zeros(400), detector="zscore", window=1)
    with pytest.raises(UsageError, match="one dimension"):
        detect(np.zeros((3, 3)))
    with pytest.raises(UsageError, match="below 4"):
        select(find_peaks(np.zeros(400)), 3.0)
