"""Symmetric matrices reduced in one pass per reflection: the same eigenvalues as numpy's."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import block_diag, hilbert

from ndt_offline.replay import tridiagonal
from ndt_offline.replay.tridiagonal import ONE_PASS, Form, eigenvalues, find_reduction
from ndt_offline.replay.workspace import Array

pytest.importorskip("numba")
from llvmlite import binding

from ndt_offline.replay import householder

Random = np.random.Generator
Made = Callable[[Random, int], np.ndarray]


def gram(random: Random, side: int) -> Array:
    matrix = np.maximum(random.standard_normal((2 * side, side)), 0.0)
    return matrix.T @ matrix


def graded(random: Random, side: int) -> Array:
    """Rows and columns that fall by 1e-12, or rise: what is left of a column is tiny."""
    scales = np.logspace(0, -12, side)[:: random.choice([-1, 1])]
    return gram(random, side) * scales[:, None] * scales


def steep(random: Random, side: int) -> Array:
    """Entries whose squares vanish beside others that do not."""
    scales = np.logspace(40, -170, side)[:: random.choice([-1, 1])]
    return gram(random, side) * scales[:, None] * scales


def low_rank(random: Random, side: int) -> Array:
    matrix = random.standard_normal((1 + side // 5, side))
    return matrix.T @ matrix


def one_value(random: Random, side: int) -> Array:
    """Nothing to reflect."""
    return 3.0 * np.eye(side)


def all_equal(random: Random, side: int) -> Array:
    return np.ones((side, side))


def blocks(random: Random, side: int) -> Array:
    half = side // 2
    return block_diag(gram(random, half), gram(random, side - half)) if half else np.eye(side)


def dead(random: Random, side: int) -> Array:
    """Rows and columns of zeros."""
    found = gram(random, side)
    gone = random.random(side) < 0.4
    found[gone], found[:, gone] = 0.0, 0.0
    return found


def near_singular(random: Random, side: int) -> Array:
    return hilbert(side)


def small(random: Random, side: int) -> Array:
    return gram(random, side) * 1e-95


def large(random: Random, side: int) -> Array:
    return gram(random, side) * 1e95


KINDS: list[Made] = [gram, graded, steep, low_rank, one_value, all_equal, blocks, dead]
KINDS += [near_singular, small, large]
SIDES = [2, 3, 4, 5, 6, 7, 8, 9, 12, 31, 32, 33, 63, 70, 128, 255, 256]


def form_of(matrix: Array, spoilt: bool = False) -> Form:
    """The form; `spoilt`: with NaN where nothing may be read."""
    lower = np.asfortranarray(np.tril(matrix))
    if spoilt:
        lower[np.triu_indices(len(lower), 1)] = np.nan
    form = Form(np.full(len(lower), np.nan), np.full(len(lower) - 1, np.nan))
    householder.reduce(lower.T, form.diagonal, form.off)
    return form


@pytest.mark.parametrize(
    ("made", "side"),
    [*itertools.product(KINDS, SIDES), (gram, 511), (graded, 514), (gram, ONE_PASS[-1])],
)
def test_eigenvalues_are_numpys(made: Made, side: int) -> None:
    matrix = made(np.random.default_rng(side), side)
    form = form_of(matrix, spoilt=True)
    # What orthogonal changes leave: the sum of eigenvalues and, scaled, that of their squares.
    scale = np.abs(matrix).max()
    squares = np.sum((form.diagonal / scale) ** 2) + 2 * np.sum((form.off / scale) ** 2)
    assert np.sum(form.diagonal) == pytest.approx(np.trace(matrix), rel=1e-13)
    assert squares == pytest.approx(np.sum((matrix / scale) ** 2), rel=1e-13)
    exact = np.linalg.eigvalsh(matrix / scale)
    error = np.abs(form.eigenvalues() / scale - exact).max()
    assert error <= 4e-16 * side * exact[-1]


def test_where_the_matrix_lies_changes_nothing() -> None:
    matrix = gram(np.random.default_rng(0), 61)
    expected, reduction = form_of(matrix), householder.reduce
    wide = np.full((64, 70), np.nan)
    for shift in range(4):
        wide[shift : shift + 61, shift + 1 : shift + 62] = matrix
        other = tridiagonal.tridiagonal(wide[shift : shift + 61, shift + 1 : shift + 62], reduction)
        np.testing.assert_array_equal(other.diagonal, expected.diagonal)
        np.testing.assert_array_equal(other.off, expected.off)


def test_the_matrix_stays_as_it_is() -> None:
    matrix = np.asfortranarray(gram(np.random.default_rng(0), 30))
    before = matrix.copy()
    tridiagonal.tridiagonal(matrix, householder.reduce)
    np.testing.assert_array_equal(matrix, before)


def refuse(lower: Array, diagonal: Array, off: Array) -> None:
    raise AssertionError("LAPACK's")


@pytest.mark.parametrize(
    "matrix",
    [
        gram(np.random.default_rng(0), ONE_PASS[-1] + 1),
        gram(np.random.default_rng(0), 20).astype(np.float32),
        gram(np.random.default_rng(0), 20) * 1e-120,
        gram(np.random.default_rng(0), 20) * 1e120,
    ],
)
def test_what_it_is_not_made_for_goes_to_lapack(matrix: Array) -> None:
    expected = eigenvalues(matrix.copy(order="F"))
    found = eigenvalues(matrix.copy(order="F"), refuse)
    np.testing.assert_array_equal(found, expected)


def test_without_numba_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ndt_offline.replay.householder", None)
    monkeypatch.delattr("ndt_offline.replay.householder", raising=False)
    assert find_reduction.__wrapped__() is None


@pytest.mark.parametrize("wrong", [1e-9, np.nan])
def test_one_that_disagrees_with_numpy_is_not_used(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = householder.reduce

    def spoilt(lower: Array, diagonal: Array, off: Array) -> None:
        real(lower, diagonal, off)
        diagonal *= 1.0 + wrong

    monkeypatch.setattr(binding, "get_host_cpu_features", dict)
    assert find_reduction.__wrapped__() is real
    monkeypatch.setattr(householder, "reduce", spoilt)
    assert find_reduction.__wrapped__() is None


def test_there_is_none_where_lapack_has_wider_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, reduction in (({"avx512f": True}, None), ({"avx2": True}, householder.reduce)):
        monkeypatch.setattr(binding, "get_host_cpu_features", lambda known=features: known)
        assert find_reduction.__wrapped__() is reduction
