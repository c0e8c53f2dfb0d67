"""Heavy tails: degrees of freedom, and Tt against a likelihood maximised by an optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import t as student

from ndt_offline.detect.elimination import eliminate
from ndt_offline.detect.filters import CUBIC
from ndt_offline.detect.gls import TAILS, Fit, accepted, fit
from ndt_offline.detect.noise import ORDER, whiten
from ndt_offline.detect.tails import GAUSSIAN, ITERATIONS, fit_tails, t_statistics

N = 1600


@pytest.mark.parametrize("df", [3.0, 5.0, 8.0])
def test_degrees_of_freedom_are_found(df: float) -> None:
    rng = np.random.default_rng(int(df))
    found = [fit_tails(2.0 * rng.standard_t(df, N)) for _ in range(15)]
    assert np.median([nu for nu, _ in found]) == pytest.approx(df, rel=0.3)
    assert np.median([scale for _, scale in found]) == pytest.approx(2.0, rel=0.05)


def test_gaussian_tails_are_gaussian_and_a_few_steps_do_not_make_them_heavy() -> None:
    rng = np.random.default_rng(0)
    plain, stepped = [], []
    for _ in range(20):
        e = rng.normal(size=N)
        plain.append(fit_tails(e)[0])
        e[rng.choice(N, 12, replace=False)] += 15
        stepped.append(fit_tails(e)[0])
    assert np.median(plain) >= 24
    assert np.median(stepped) >= 12


def test_tt_is_the_likelihood_ratio() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_t(4, size=700)
    for t in range(1, 700):
        x[t] += 0.5 * x[t - 1]
    x[350:] += 6.0
    piece = fit(x, np.arange(700))
    found, noise = piece.found, piece.found.noise
    k = int(np.abs(found.at - 350).argmin())
    Tt, nu = t_statistics(piece.clean, found, piece.ranking)
    assert nu < GAUSSIAN
    _, scale = fit_tails(noise.innovations[ORDER:] / noise.volatility[ORDER:])
    rest = piece.clean - sum(
        size * (np.arange(700) >= at)
        for at, size in zip(found.at, piece.ranking.others[k], strict=True)
    )
    best = 0.0
    for row, half in enumerate(found.bank.halves):
        window = slice(found.at[k] - half, found.at[k] + half)
        columns = found.bank.designs[row][:, 128 - half : 128 + half]
        columns = columns[np.abs(columns).sum(axis=1) > 0] / noise.volatility[window]
        data = whiten(rest - rest.mean(), noise.phi)[window] / noise.volatility[window]

        def loss(beta: np.ndarray, design: np.ndarray, data: np.ndarray = data) -> float:
            return -float(student.logpdf((data - beta @ design) / scale, nu).sum())

        fits = []
        for design in (columns, columns[1:]):
            start = np.linalg.lstsq(design.T, data, rcond=None)[0]
            fits.append(minimize(loss, start, args=(design,), method="BFGS").fun)
        best = max(best, np.sqrt(2 * max(fits[1] - fits[0], 0.0)))
    assert abs(Tt[k]) == pytest.approx(best, rel=0.02)
    assert np.sign(Tt[k]) == np.sign(piece.ranking.sizes[k])


def test_wild_innovations_of_a_walk_are_doubted_steps_are_not() -> None:
    wild, doubted = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        piece = fit(np.cumsum(rng.standard_t(5, size=N)), np.arange(N))
        ranking = eliminate(piece.found)
        nu = np.full(len(piece.Tt), piece.nu)
        columns = {"drops_out": ranking.drops_out, "Tt": piece.Tt, "nu": nu}
        wild += int((ranking.drops_out >= 4.7).sum())
        doubted += int(accepted(columns, 4.7, TAILS).sum())
    assert wild > 40
    assert doubted < 0.25 * wild


def by_orthogonal_fits(piece: Fit, i: int) -> float:
    """|Tt| of candidate i by least squares on the columns themselves, not on their products."""
    found, noise, at = piece.found, piece.found.noise, int(piece.found.at[i])
    nu, scale = fit_tails(noise.innovations[ORDER:] / noise.volatility[ORDER:])
    rest = piece.clean.copy()
    for other, size in zip(found.at, piece.ranking.others[i], strict=True):
        rest[other:] -= size
    white, best = whiten(rest - rest[at], noise.phi), 0.0
    for design, half in zip(found.bank.designs, found.bank.halves, strict=True):
        if not half + ORDER <= at <= len(rest) - half:
            continue
        window, rows = slice(at - half, at + half), 5 if half >= CUBIC else 3
        columns = (design[:rows, 128 - half : 128 + half] / noise.volatility[window]).T
        data, losses = white[window] / noise.volatility[window], []
        for kept in (columns, columns[:, 1:]):
            unit, weight = kept / np.linalg.norm(kept, axis=0), np.ones(len(data))
            for _ in range(ITERATIONS):
                root = np.sqrt(weight)
                beta = np.linalg.lstsq(unit * root[:, None], data * root, rcond=None)[0]
                square = ((data - unit @ beta) / scale) ** 2
                weight = (nu + 1) / (nu + square)
            losses.append((nu + 1) / 2 * np.log1p(square / nu).sum())
        best = max(best, np.sqrt(2 * max(losses[1] - losses[0], 0.0)))
    return best


@pytest.mark.parametrize("seed", [1, 6, 13])
def test_tt_holds_its_digits_where_the_noise_spans_many_orders(seed: int) -> None:
    t = np.arange(400)
    wild = np.random.default_rng(seed).standard_t(1.5, 400)
    piece = fit(np.cumsum(wild * 10.0 ** (-t / 22)), t)
    Tt, nu = t_statistics(piece.clean, piece.found, piece.ranking)
    assert nu < 3
    expected = [by_orthogonal_fits(piece, i) for i in range(len(Tt))]
    np.testing.assert_allclose(np.abs(Tt), expected, rtol=1e-4, atol=1e-4)
