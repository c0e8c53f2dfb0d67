"""The step filters against least squares written out, and their scale on known noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from ndt_offline.detect.filters import HALVES, calibrate, make_bank, respond, run_filters
from ndt_offline.detect.noise import ORDER, Noise, autoregress, fit_ar, fit_noise, whiten
from ndt_offline.detect.pursuit import covary

PHI = np.r_[0.6, 0.2, -0.1, 0.05, np.zeros(4)]
N = 800


def known(volatility: np.ndarray) -> Noise:
    return Noise(np.zeros(N), PHI, np.zeros(N), volatility)


def full_whitening(n: int) -> np.ndarray:
    """The matrix of x_t - sum phi_k x_(t-k), rows from the ninth on."""
    matrix = np.eye(n)
    for k, weight in enumerate(PHI, start=1):
        matrix -= weight * np.eye(n, k=-k)
    return matrix[ORDER:]


@pytest.mark.parametrize(("row", "half"), list(enumerate(HALVES)))
def test_a_filter_is_generalised_least_squares(row: int, half: int) -> None:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=N)) + 7.0
    noise = known(np.ones(N))
    maps = run_filters(x, noise, make_bank(PHI, N))
    for at in (300, 441):
        rows = np.arange(at - half - ORDER, at + half)
        t = (rows - at) / half
        powers = range(4) if half == 128 else range(2)
        design = np.stack([(rows >= at).astype(float), *(t**k for k in powers)], axis=1)
        whitening = full_whitening(len(rows))
        a, b = whitening @ design, whitening @ x[rows]
        estimate = np.linalg.lstsq(a, b, rcond=None)[0][0]
        error = np.sqrt(np.linalg.inv(a.T @ a)[0, 0])
        assert maps.size[row, at] == pytest.approx(estimate, rel=1e-6, abs=1e-7)
        assert maps.error[row, at] == pytest.approx(error, rel=1e-6)


def test_the_response_is_the_output_to_a_unit_step() -> None:
    x = np.zeros(N)
    x[400:] = 1.0
    bank = make_bank(PHI, N)
    maps = run_filters(x, known(np.ones(N)), bank)
    for row in range(len(HALVES)):
        at = np.arange(200, 600)
        expected = respond(bank, np.full(len(at), row), at - 400)
        np.testing.assert_allclose(maps.size[row, at], expected, atol=1e-8)


def test_drift_that_the_nuisance_covers_gives_nothing() -> None:
    t = np.arange(N) / N
    maps = run_filters(5 + 100 * t, known(np.ones(N)), make_bank(PHI, N))
    assert np.abs(maps.size).max() < 1e-6
    cubic = run_filters(5 + 100 * t**3 - 70 * t**2, known(np.ones(N)), make_bank(PHI, N))
    assert np.abs(cubic.size[3]).max() < 1e-5


def test_size_over_error_has_unit_spread_under_changing_volatility() -> None:
    rng = np.random.default_rng(5)
    volatility = np.linspace(3.0, 0.5, N)
    bank = make_bank(PHI, N)
    ratios = []
    for _ in range(60):
        x = lfilter([1.0], np.r_[1.0, -PHI], rng.normal(size=N) * volatility)
        maps = run_filters(x, known(volatility), bank)
        ratios.append(maps.size[:, 200:600:20] / maps.error[:, 200:600:20])
    spread = np.std(ratios, axis=(0, 2))
    np.testing.assert_allclose(spread, 1.0, atol=0.08)
    np.testing.assert_allclose(calibrate(maps.size, maps.error, HALVES), 1.0, atol=0.5)


def test_covariance_of_outputs_is_that_of_simulated_outputs() -> None:
    rng = np.random.default_rng(6)
    volatility = np.linspace(2.0, 1.0, N)
    bank, at, row = make_bank(PHI, N), np.array([300, 320, 380]), np.array([0, 1, 2])
    outputs = []
    for _ in range(3000):
        innovations = rng.normal(size=N) * volatility
        padded = np.pad(innovations, 128)
        outputs.append(
            [padded[i : i + 256] @ bank.weights[r] for i, r in zip(at, row, strict=True)]
        )
    expected = covary(bank, np.ones(4), known(volatility), at, row)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(np.cov(np.array(outputs).T) / scale, expected / scale, atol=0.08)


def test_the_autoregression_is_found_in_spite_of_outliers() -> None:
    rng = np.random.default_rng(1)
    x = lfilter([1.0], np.r_[1.0, -PHI], rng.normal(size=6000))[1000:]
    x[rng.choice(5000, 50, replace=False)] += 30
    np.testing.assert_allclose(fit_ar(x), PHI, atol=0.06)


def test_volatility_follows_the_noise() -> None:
    rng = np.random.default_rng(2)
    true = np.where(np.arange(1600) < 800, 4.0, 1.0)
    noise = fit_noise(rng.normal(size=1600) * true)
    inner = np.r_[100:700, 900:1500]
    assert np.abs(np.log(noise.volatility[inner] / true[inner])).mean() < 0.15


def test_autoregression_is_the_recursion_and_whitening_undoes_it() -> None:
    e = np.random.default_rng(0).normal(size=(3, 300))
    x = autoregress(e, PHI)
    np.testing.assert_allclose(x, lfilter([1.0], np.r_[1.0, -PHI], e, axis=1), atol=1e-10)
    np.testing.assert_allclose(whiten(x, PHI)[:, ORDER:], e[:, ORDER:], atol=1e-10)
    walk = autoregress(e[0], (1.0,))
    np.testing.assert_allclose(walk, np.cumsum(e[0]), atol=1e-10)


def test_whitening_one_series_and_many_agree() -> None:
    x = np.random.default_rng(3).normal(size=(3, 100))
    np.testing.assert_allclose(whiten(x, PHI)[1], whiten(x[1], PHI), atol=1e-13)
