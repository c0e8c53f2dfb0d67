"""Simes, Benjamini-Hochberg, the t of a rho and its interval, against scipy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, pearsonr

from ndt_offline.relate.cells import COUPLED, NULLS
from ndt_offline.relate.combine import benjamini_hochberg, simes
from ndt_offline.relate.ranks import unit_ranks, unit_rows
from ndt_offline.relate.serial import autocorrelation, effective_n, interval_of_rho, p_of_rho

RNG = np.random.default_rng(8)


def test_simes_by_hand() -> None:
    assert simes(np.array([0.01, 0.5, 0.9])) == pytest.approx(0.03)
    assert simes(np.array([0.04, 0.05, 0.06])) == pytest.approx(0.06)
    assert simes(np.array([0.2, np.nan, 0.01])) == pytest.approx(0.02)
    assert np.isnan(simes(np.array([np.nan, np.nan])))


def test_simes_is_uniform_for_independent_parts() -> None:
    p = simes(RNG.uniform(size=(20000, 3)))
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.005)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.012)


def test_q_is_scipys() -> None:
    p = RNG.uniform(size=(20, 3)) ** 3
    want = false_discovery_control(p.ravel()).reshape(20, 3)
    np.testing.assert_allclose(benjamini_hochberg(p), want)


def test_pairs_without_p_do_not_count_among_the_pairs() -> None:
    p = np.array([0.01, np.nan, 0.04])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, np.nan, 0.04])


def test_p_of_a_correlation_is_scipys() -> None:
    x, y = RNG.normal(size=(2, 30))
    want = pearsonr(x, y)
    got = p_of_rho(np.array([[want.statistic]]), np.array([[30.0]]))
    np.testing.assert_allclose(got, want.pvalue)


def test_autocorrelation_is_the_sum_of_products() -> None:
    x = unit_rows(RNG.normal(size=(2, 100)))
    want = [[np.dot(row[: 100 - j], row[j:]) for j in range(1, 8)] for row in x]
    np.testing.assert_allclose(autocorrelation(x, 7), want, atol=1e-12)


def test_effective_n_of_autoregressions_is_bartletts() -> None:
    # Two AR(1): n (1 - ab) / (1 + ab).
    x, y = NULLS["AR(1) .9"](RNG, 40, 6000), NULLS["AR(1) .5"](RNG, 40, 6000)
    got = np.median(effective_n(unit_ranks(x), unit_ranks(y)))
    assert got == pytest.approx(6000 * (1 - 0.45) / (1 + 0.45), rel=0.1)


def test_interval_of_rho_holds_the_truth() -> None:
    held = {}
    for name in ("AR .9 + noise", "AR .5 + noise", "AR .9, shocks .2"):
        x, y = COUPLED[name](RNG, 300, 1600)
        # rho of the process itself, from ranks of one long pair.
        a, b = COUPLED[name](RNG, 1, 400_000)
        truth = (unit_ranks(a) @ unit_ranks(b).T).item()
        ra, rb = unit_ranks(x), unit_ranks(y)
        low, high = interval_of_rho(ra @ rb.T, effective_n(ra, rb))
        held[name] = np.mean((np.diag(low) <= truth) & (truth <= np.diag(high)))
    assert all(0.91 <= share <= 0.99 for share in held.values()), held


def test_interval_of_a_pair_worth_nothing_is_everything() -> None:
    low, high = interval_of_rho(np.array([0.9, -1.0, np.nan]), np.array([3.0, 3.0, 3.0]))
    np.testing.assert_array_equal(low, [-1, -1, np.nan])
    np.testing.assert_array_equal(high, [1, 1, np.nan])
