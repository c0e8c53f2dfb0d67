"""rho against scipy's, with and without ties, and what has no rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from ndt_offline.relate.ranks import rank_rows, share_of_ties, spearman


@given(arrays(np.float64, (3, 17), elements=st.integers(-4, 4).map(float)))
def test_ranks_are_scipys_with_ties(values: np.ndarray) -> None:
    np.testing.assert_array_equal(rank_rows(values), rankdata(values, axis=1))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 100, 10**6]))
def test_rho_is_scipys(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels + 1, (4, 60)).astype(float)
    y = rng.integers(0, levels + 1, (2, 60)).astype(float)
    want = [[spearmanr(a, b).statistic for b in y] for a in x]
    np.testing.assert_allclose(spearman(x, y), want, rtol=0, atol=1e-12)


def test_rho_keeps_its_digits_on_a_long_series() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(5, 1600)).cumsum(1), np.round(rng.normal(size=(2, 1600)), 1)
    want = [[spearmanr(a, b).statistic for b in y] for a in x]
    np.testing.assert_allclose(spearman(x, y), want, rtol=0, atol=1e-12)


def test_a_constant_has_no_rho() -> None:
    rows = np.vstack([np.full(20, 0.1), np.arange(20.0)])
    rho = spearman(rows, np.arange(20.0)[None])
    assert np.isnan(rho[0, 0])
    assert rho[1, 0] == pytest.approx(1, abs=1e-12)


def test_rho_does_not_change_under_growing_functions() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 50)), rng.normal(size=(2, 50))
    np.testing.assert_array_equal(spearman(np.exp(x), y**3), spearman(x, y))


def test_share_of_ties() -> None:
    rows = np.array([[1.0, 2, 3, 4], [1, 1, 2, 3], [5, 5, 5, 5]])
    np.testing.assert_array_equal(share_of_ties(rows), [0, 0.5, 1])
