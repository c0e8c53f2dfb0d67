"""Phases: the search against brute force, the noise against its formula, planted breakpoints."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ndt_offline.errors import UsageError
from ndt_offline.relate import Phase, fit_phases, phase_words, phases_table
from ndt_offline.relate.bins import log_bins
from ndt_offline.relate.cells import filtered
from ndt_offline.relate.evidence import moving_average
from ndt_offline.relate.hinges import fit_curves, prepare
from ndt_offline.relate.noise import (
    Noise,
    bin_covariance,
    coefficients,
    fit_noise,
    persistence,
    raw_draws,
    simulate,
)
from ndt_offline.relate.phase import label_of

STEPS = np.arange(1600) * 5.0
CLOCK = np.log1p(STEPS)
END = float(CLOCK[-1])


def ar(rng: np.random.Generator, phi: float, rows: int = 1) -> np.ndarray:
    white = rng.normal(size=(rows, 1600 + 2500))
    return np.sqrt(1 - phi**2) * filtered(white, phi)[:, -1600:]


def curve(knots: list[float], values: list[float]) -> np.ndarray:
    return np.interp(CLOCK, knots, values)


def test_bins_cover_every_sample_once_and_average_it() -> None:
    bins = log_bins(STEPS)
    assert bins.sizes.sum() == 1600 and len(bins.starts) <= 100
    x = np.random.default_rng(0).normal(size=1600)
    last = slice(bins.starts[-1], None)
    brute = bins.mean(np.maximum(bins.t - bins.places[:, None], 0.0))
    np.testing.assert_allclose(bins.hinges, brute, atol=1e-12)
    assert bins.mean(x)[-1] == pytest.approx(x[last].mean())
    assert CLOCK[last].max() - CLOCK[last].min() <= bins.width


@pytest.mark.parametrize("average", [0.0, 0.8])
def test_bin_covariance_is_the_sum_over_the_samples(average: float) -> None:
    bins = log_bins(STEPS)
    noise = Noise(np.array([[0.9, -0.3, 0.2, 0.1]]), np.array([2.0]), average)
    phi = coefficients(noise.reflection)[0]
    # The autocovariance by a long impulse response, an independent way.
    impulse = np.zeros((1, 20000))
    impulse[0, :2] = 1, -average
    response = filtered(impulse, *phi)[0]
    gamma = np.array([response[: 20000 - j] @ response[j:] for j in range(1600)])
    gamma *= 4.0 / gamma[0]
    assert persistence(noise) == pytest.approx(gamma[1] / 4.0, abs=1e-6)
    full = gamma[np.abs(np.subtract.outer(np.arange(1600), np.arange(1600)))]
    mean = np.zeros((len(bins.starts), 1600))
    for i, (start, size) in enumerate(zip(bins.starts, bins.sizes, strict=True)):
        mean[i, start : start + size] = 1 / size
    np.testing.assert_allclose(bin_covariance(noise, bins), mean @ full @ mean.T, atol=1e-6)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_simulated_noise_is_fitted_back(average: float) -> None:
    noise = Noise(np.array([[0.7, -0.4, 0.3, -0.2]]), np.array([1.5]), average)
    back = fit_noise(simulate(noise, raw_draws(200, 1600, 0), 1600), average)
    np.testing.assert_allclose(back.reflection.mean(axis=0), noise.reflection[0], atol=0.01)
    assert back.deviation.mean() == pytest.approx(1.5, rel=0.01)


def test_burg_of_an_ar1_is_its_coefficient() -> None:
    got = coefficients(fit_noise(ar(np.random.default_rng(1), 0.8, 50)).reflection).mean(axis=0)
    np.testing.assert_allclose(got, [0.8, 0, 0, 0], atol=0.02)


def test_slow_noise_under_white_noise_is_seen() -> None:
    rows = ar(np.random.default_rng(7), 0.98, 20) + np.random.default_rng(8).normal(size=(20, 1600))
    # An ARMA(1, 1): (1 - .98 B) x = e + w - .98 w', so -b / (1 + b^2) is its first autocorrelation.
    ratio = 0.98 / (1 + 0.98**2 + (1 - 0.98**2))
    truth = (1 - np.sqrt(1 - 4 * ratio**2)) / (2 * ratio)
    found = [moving_average(row) for row in rows]
    assert np.median(found) == pytest.approx(truth, abs=0.06)
    reflection = np.vstack(
        [fit_noise(r[None], a).reflection for r, a in zip(rows, found, strict=True)]
    )
    assert np.median(reflection[:, 0]) == pytest.approx(0.98, abs=0.02)
    assert moving_average(ar(np.random.default_rng(9), 0.9)[0]) == 0


def line_and_noise(name: str, n: int, trials: int) -> np.ndarray:
    rng = np.random.default_rng([11, n, len(name)])
    white = rng.normal(size=(trials, n))
    sizes = {
        "growing": np.linspace(1, 3, n),
        "tenfold": np.linspace(0.3, 3, n),
        "doubling": np.where(np.arange(n) < n // 2, 1.0, 2.0),
    }
    slow = ar(rng, 0.98, trials)[:, -n:]
    noise = white * sizes[name] if name in sizes else slow + white
    return noise + 2 * CLOCK[:n] / CLOCK[n - 1]


@pytest.mark.slow
@pytest.mark.parametrize("n", [401, 1600])
@pytest.mark.parametrize("name", ["growing", "tenfold", "doubling", "slow"])
def test_a_line_in_uncommon_noise_is_seldom_called_bent(name: str, n: int) -> None:
    trials = 300 if os.environ.get("NDT_SLOW") else 40
    # Draws of their own for every ten: 99 shared ones are one sample of a quantile, not many.
    tens = line_and_noise(name, n, trials).reshape(-1, 10, n)
    fits = [f for i, ten in enumerate(tens) for f in fit_phases(ten, STEPS[:n], draws=99, seed=i)]
    bent = [len(f.phases) > 1 and not phase_words(f).endswith("random walk") for f in fits]
    assert np.mean(bent) <= 0.12 + 2 * np.sqrt(0.12 * 0.88 / trials)
    if name != "slow" or n == 1600:
        bent = [len(f.phases) > 1 for f in fits]
        assert np.mean(bent) <= 0.12 + 2 * np.sqrt(0.12 * 0.88 / trials)


def test_evidence_is_what_the_curve_explains_beyond_a_line_in_slow_noise() -> None:
    rng = np.random.default_rng(12)
    bent = curve([0, 4, END], [3, 1, 2]) + 0.2 * rng.normal(size=1600)
    walk = rng.normal(size=1600).cumsum()
    strong, weak = fit_phases(np.stack([bent, walk]), STEPS, phases=2, draws=19)
    assert strong.evidence > 20 > 15 > weak.evidence


@pytest.mark.parametrize("phases", [2, 3])
def test_the_search_finds_the_best_of_all_breakpoints(phases: int) -> None:
    rng = np.random.default_rng(2)
    steps = np.arange(120.0)
    bins = log_bins(steps, 25)
    covariance = bin_covariance(Noise(np.array([[0.5, 0, 0, 0]]), np.ones(1)), bins)
    search = prepare(bins, covariance)
    means = rng.normal(size=(4, len(bins.starts))).cumsum(axis=1)
    got = fit_curves(search, means, phases)
    precision = np.linalg.inv(covariance)
    root = np.linalg.cholesky(precision).T
    for row, found in zip(means, got.rss, strict=True):
        rss = []
        edges = bins.places[::5]
        chosen = (
            [(c,) for c in edges]
            if phases == 2
            else [(c, d) for i, c in enumerate(edges) for d in edges[i + 3 :]]
        )
        for at in chosen:
            hinges = [bins.mean(np.maximum(bins.t - c, 0)) for c in at]
            design = root @ np.stack([np.ones(len(row)), bins.centres, *hinges], axis=1)
            rss.append(np.linalg.lstsq(design, root @ row, rcond=None)[1][0])
        # Breakpoints between edges can only do better than the best edges, and do so by little.
        assert found <= min(rss) + 1e-9
        assert found >= 0.5 * min(rss)


def test_a_curve_without_noise_is_found_exactly() -> None:
    bins = log_bins(STEPS)
    knots = [0, float(bins.places[60]), float(bins.places[200]), END]
    (fit,) = fit_phases(curve(knots, [9.0, 2.0, 4.0, 4.0]), STEPS, draws=0)
    starts = [p.start for p in fit.phases]
    np.testing.assert_allclose(starts[1:], np.expm1(knots[1:3]), rtol=0.02)
    np.testing.assert_allclose([p.change for p in fit.phases], [-7, 2, 0], atol=0.05)
    assert [p.label for p in fit.phases] == ["falls", "rises", "stable"]
    assert np.isnan(fit.phases[1].start_low)


def test_labels() -> None:
    assert label_of(2.0, 1.0, 3.0, 4.0) == "rises"
    assert label_of(-2.0, -3.0, -1.0, 4.0) == "falls"
    assert label_of(0.5, -0.1, 0.9, 4.0) == "stable"
    assert label_of(2.0, -0.1, 4.1, 4.0) == "unclear"
    assert label_of(2.0, -0.1, 4.1, 4.0, noise=4.0) == "stable"
    assert label_of(0.3, 0.2, 0.4, 4.0) == "stable"
    assert label_of(2.0, np.nan, np.nan, 4.0) == "rises"
    assert label_of(np.nan, np.nan, np.nan, np.nan) == "unclear"


def test_units_of_the_series_change_nothing_but_the_numbers_units() -> None:
    rng = np.random.default_rng(3)
    y = curve([0, 4, END], [3, 1, 2]) + 0.2 * ar(rng, 0.5)
    (a,), (b,) = fit_phases(y, STEPS), fit_phases(1e-7 * y + 5, STEPS)
    assert len(a.phases) == len(b.phases) and a.p_two == b.p_two
    assert b.phases[0].change == pytest.approx(1e-7 * a.phases[0].change, rel=1e-4)
    assert b.noise == pytest.approx(1e-7 * a.noise, rel=1e-4)


@pytest.mark.parametrize("exponent", [540, 1020, -540, -1000])
def test_sizes_at_the_ends_of_the_floats_are_fitted_as_any_other(exponent: int) -> None:
    y = curve([0, 4, END], [1.5, 0.5, 1]) + 0.2 * ar(np.random.default_rng(3), 0.5)[0]
    (a,), (b,) = fit_phases(y, STEPS), fit_phases(np.ldexp(y, exponent), STEPS)
    assert b.p_two == a.p_two and b.noise == np.ldexp(a.noise, exponent)
    assert [p.label for p in b.phases] == [p.label for p in a.phases]
    assert [p.low for p in b.phases] == [np.ldexp(p.low, exponent) for p in a.phases]
    assert b.values == tuple(np.ldexp(a.values, exponent))


def test_a_result_does_not_depend_on_the_company_of_a_series() -> None:
    rng = np.random.default_rng(4)
    rows = curve([0, 4, END], [3, 1, 2]) + 0.2 * ar(rng, 0.5, 3)
    assert fit_phases(rows, STEPS)[2].phases == fit_phases(rows[2], STEPS)[0].phases


def test_early_share_of_a_line_in_log_time() -> None:
    # log(1 + 2000) / log(1 + 8000) of a straight line lies in the first quarter.
    (fit,) = fit_phases(curve([0, END], [0, 1]), STEPS, phases=1, draws=0)
    assert fit.early == pytest.approx(np.log1p(0.25 * STEPS[-1]) / END)


def test_what_cannot_be_fitted_says_why() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(4, 400))
    rows[0] = 3.0
    rows[1, 50:200] = np.nan
    rows[2, 30:] = np.nan
    rows[3, [7, 90]] = np.nan
    fits = fit_phases(rows, np.arange(400) * 5, draws=19)
    assert [f.status for f in fits] == [
        "constant series",
        "too many gaps",
        "too short",
        "gaps filled",
    ]
    assert [f.series for f in fits] == [0, 1, 2, 3]
    table = phases_table(fits)
    assert table["count"].tolist()[:3] == [0, 0, 0] and table["label"].shape == (4, 3)
    with pytest.raises(UsageError, match="phases"):
        fit_phases(rows, phases=4)
    with pytest.raises(UsageError, match="first step"):
        fit_phases(rows, np.arange(400) - 1)
    with pytest.raises(UsageError, match="draws"):
        fit_phases(rows, draws=5)


def holds(phase: Phase, knot: float) -> bool:
    return phase.start_low <= np.expm1(knot) <= phase.start_high


@pytest.mark.slow
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_intervals_and_calls_hold_what_they_promise(phi: float) -> None:
    trials = 300 if os.environ.get("NDT_SLOW") else 30
    rng = np.random.default_rng([6, int(10 * phi)])
    ends = rng.uniform(3, 5.5, trials)
    seconds = rng.uniform(ends + 1.2, 8)
    lines = np.stack([curve([0, END], [3, 1])] * trials)
    twos = np.stack([curve([0, c, END], [3, 1, 2]) for c in ends])
    pairs = zip(ends, seconds, strict=True)
    threes = np.stack([curve([0, c, d, END], [4, 2, 3.2, 3.2]) for c, d in pairs])
    lines, twos, threes = (rows + 0.3 * ar(rng, phi, trials) for rows in (lines, twos, threes))
    bent = np.mean([len(f.phases) > 1 for f in fit_phases(lines, STEPS)])
    more = np.mean([len(f.phases) == 3 for f in fit_phases(twos, STEPS)])
    fits = fit_phases(threes, STEPS, phases=3)
    first = np.mean([holds(f.phases[1], c) for f, c in zip(fits, ends, strict=True)])
    second = np.mean([holds(f.phases[2], d) for f, d in zip(fits, seconds, strict=True)])
    # Binomial room of three standard errors around the promise.
    room = 3 * np.sqrt(0.1 * 0.9 / trials)
    assert bent <= 0.12 + room and more <= 0.1 + room
    assert 0.85 - room <= first <= 0.98 + room
    assert 0.85 - room <= second <= 0.98 + room
    if phi <= 0.5:
        assert np.mean([f.p_three <= 0.05 for f in fit_phases(threes[:20], STEPS)]) >= 0.8
