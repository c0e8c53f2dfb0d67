"""Singular values against numpy's float64 SVD, and the awkward matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndt_offline.replay.spectra import singular_values
from ndt_offline.replay.workspace import SHORTEST, Workspace

try:
    from ndt_offline.replay.householder import reduce as REDUCTION
except ImportError:
    REDUCTION = None


def compare(matrix: np.ndarray) -> None:
    exact = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    for work in (None, Workspace(REDUCTION)):  # LAPACK; the compiled reduction, with numba
        found = singular_values(matrix, work)
        assert found.dtype == np.float64 and found.shape == exact.shape
        assert (np.diff(found) <= 0).all()
        top = exact[0]
        large = exact >= 1e-4 * top
        assert np.abs(found[large] / exact[large] - 1).max() <= 1e-6
        assert np.abs(found - exact).max() <= 1e-9 * top


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 9), (9, 1), (2, 2), (512, 256), (256, 784), (512, 10), (7, 3 * SHORTEST + 1)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random(shape: tuple[int, int], dtype: type) -> None:
    compare(np.random.default_rng(1).normal(size=shape).astype(dtype))


@pytest.mark.parametrize("decay", [1.0, 4.0, 9.0, 14.0])
def test_ill_conditioned(decay: float) -> None:
    rng = np.random.default_rng(2)
    u, _ = np.linalg.qr(rng.normal(size=(60, 40)))
    v, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    compare(u * np.logspace(0, -decay, 40) @ v.T)


def test_rank_deficient() -> None:
    rng = np.random.default_rng(3)
    compare(rng.normal(size=(50, 3)) @ rng.normal(size=(3, 30)))
    relu = np.maximum(rng.normal(size=(80, 20)), 0)
    relu[:, 5:12] = 0  # dead units
    compare(relu)


@pytest.mark.parametrize("share", [3.05e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 1.01e-4])
@pytest.mark.parametrize(
    ("side", "dtype"), [(64, np.float64), (200, np.float32), (500, np.float64)]
)
def test_small_values_beside_entries_of_one_sign(side: int, dtype: type, share: float) -> None:
    """Eigenvalues of such Gram matrices are the least exact: ones above a multiple of identity."""
    ones, rest = np.ones((side, side), dtype), share * side * np.eye(side, dtype=dtype)
    compare(np.concatenate([ones, rest]))


def test_constructed_spectrum() -> None:
    rng = np.random.default_rng(4)
    wanted = np.array([9.0, 5.0, 5.0, 1.0, 0.25])
    u, _ = np.linalg.qr(rng.normal(size=(12, 5)))
    v, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert singular_values((u * wanted) @ v.T) == pytest.approx(wanted, rel=1e-12)


@given(st.integers(-300, 300))
@settings(max_examples=30)
def test_extreme_scales(exponent: int) -> None:
    matrix = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    scale = 10.0**exponent
    assert singular_values(matrix * scale) == pytest.approx([4 * scale, 3 * scale], rel=1e-12)


def test_rotation_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    a = rng.normal(size=(30, 20))
    q, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    assert singular_values(q @ a) == pytest.approx(singular_values(a), rel=1e-10)


def test_nothing_zero_and_not_finite() -> None:
    assert singular_values(np.zeros((0, 5))).shape == (0,)
    assert (singular_values(np.zeros((4, 3))) == 0).all()
    for bad in (np.nan, np.inf, -np.inf):
        matrix = np.ones((4, 3))
        matrix[2, 1] = bad
        assert np.isnan(singular_values(matrix)).all()
    with pytest.raises(ValueError, match="matrix"):
        singular_values(np.zeros(3))
