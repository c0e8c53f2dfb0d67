"""Tridiagonal forms solved in lock-step: against LAPACK to the last bit, and against numpy."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import lapack

from ndt_offline.replay import solver
from ndt_offline.replay.solver import FEWEST, are_usual, find_solver
from ndt_offline.replay.tridiagonal import Form

pytest.importorskip("numba")
LANES = 16
Random = np.random.Generator
Made = Callable[[Random, int], tuple[np.ndarray, np.ndarray]]


def gram(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What it is made for: the form of a Gram matrix, by LAPACK."""
    matrix = random.standard_normal((2 * side, side))
    _, diagonal, off, _, _ = lapack.dsytrd(np.asfortranarray(matrix.T @ matrix), lower=1)
    return diagonal, off


def graded(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    """L L' of a bidiagonal L whose rows fall by 1e-12, or rise."""
    lower = np.logspace(0, -12, side)[:: random.choice([-1, 1])] * random.uniform(0.5, 1, side)
    below = lower[1:] * random.standard_normal(side - 1)
    diagonal = lower**2
    diagonal[1:] += below**2
    return diagonal, lower[:-1] * below


def clustered(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Many eigenvalues within 1e-9: Wilkinson's W+, the ends of the spectrum in close pairs."""
    return np.abs(np.arange(side) - side / 2) + random.uniform(0, 1e-9, side), np.ones(side - 1)


def indefinite(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    return random.standard_normal(side), random.standard_normal(side - 1)


def diagonal(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    return random.standard_normal(side), np.zeros(side - 1)


def split(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Zeros beside the diagonal: several matrices in one."""
    on, off = indefinite(random, side)
    off[random.integers(0, side - 1, 1 + side // 8)] = 0.0
    return on, off


def nearly_split(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    on, off = gram(random, side)
    off[random.integers(0, side - 1, 1 + side // 8)] *= 1e-9
    return on, off


def zeros(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(side), np.zeros(side - 1)


def flat(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A diagonal of zeros."""
    return np.zeros(side), random.standard_normal(side - 1)


def huge(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    on, off = gram(random, side)
    return on * 1e150, off * 1e150


def tiny(random: Random, side: int) -> tuple[np.ndarray, np.ndarray]:
    on, off = gram(random, side)
    return on * 1e-150, off * 1e-150


KINDS: list[Made] = [
    gram, graded, clustered, indefinite, diagonal, split, nearly_split, zeros, flat, huge, tiny,
]  # fmt: skip


def solved(forms: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray | None]:
    solve = find_solver()
    assert solve is not None
    return solve([Form(diagonal.copy(), off.copy()) for diagonal, off in forms])


def by_lapack(diagonal: np.ndarray, off: np.ndarray) -> np.ndarray:
    values, failed = lapack.dsterf(diagonal, off)
    assert not failed
    return values


@pytest.mark.parametrize("side", [2, 3, 4, 17, 64, 129])
@pytest.mark.parametrize("made", KINDS, ids=lambda made: made.__name__)
def test_values_are_those_of_lapack_and_right(made: Made, side: int) -> None:
    random = np.random.default_rng(side)
    for count in (1, FEWEST, LANES):
        forms = [made(random, side) for _ in range(count)]
        for (on, off), found in zip(forms, solved(forms), strict=True):
            assert found is not None
            np.testing.assert_array_equal(found, by_lapack(on, off))
            scale = max(np.abs(on).max(), np.abs(off).max()) or 1.0
            dense = np.diag(on / scale) + np.diag(off / scale, 1) + np.diag(off / scale, -1)
            exact = np.linalg.eigvalsh(dense)
            assert np.abs(found / scale - exact).max() <= 1e-14 * max(side, 10)


def test_a_single_entry() -> None:
    (found,) = solved([(np.array([3.5]), np.zeros(0))])
    assert found is not None and found.tolist() == [3.5]


def test_few_of_these_kinds_are_left_to_lapack() -> None:
    """Otherwise LAPACK would be compared with itself above."""
    random = np.random.default_rng(0)
    forms = [made(random, 64) for made in KINDS]
    known = are_usual(np.array([on for on, _ in forms]), np.array([off for _, off in forms]))
    usual = {made for made, one in zip(KINDS, known, strict=True) if one}
    assert usual >= {gram, graded, clustered, indefinite, nearly_split}
    assert not usual & {diagonal, split, zeros, huge, tiny}


def test_lanes_do_not_depend_on_each_other() -> None:
    random = np.random.default_rng(5)
    mine, expected = gram(random, 90), None
    for made in KINDS:
        others = [made(random, 90) for _ in range(LANES - 1)]
        for place in (0, 3, LANES - 1):
            found = solved([*others[:place], mine, *others[place:]])[place]
            assert found is not None
            expected = found if expected is None else expected
            np.testing.assert_array_equal(found, expected)


def test_very_different_matrices_share_the_lanes() -> None:
    random = np.random.default_rng(6)
    for _ in range(20):
        forms = [KINDS[random.integers(len(KINDS))](random, 70) for _ in range(LANES)]
        for (on, off), found in zip(forms, solved(forms), strict=True):
            np.testing.assert_array_equal(found, by_lapack(on, off))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_lane(bad: float) -> None:
    from ndt_offline.replay import lockstep

    random = np.random.default_rng(7)
    forms = [gram(random, 60) for _ in range(LANES)]
    forms[4][0][30] = bad
    found = solved(forms)
    assert found[4] is None or not np.isfinite(found[4]).all()
    work, values = np.zeros((61, lockstep.FIELDS, LANES)), np.empty((LANES, 60))
    for lane, (on, off) in enumerate(forms):  # not sorted out before
        work[:60, 0, lane], work[:59, 1, lane] = on, off**2
    failed = np.zeros(LANES, bool)
    lockstep.solve(work.reshape(-1), values, failed)
    assert failed[4] or not np.isfinite(values[4]).all()
    assert failed.sum() <= 1
    for lane in set(range(LANES)) - {4}:
        on, off = forms[lane]
        exact = np.linalg.eigvalsh(np.diag(on) + np.diag(off, 1) + np.diag(off, -1))
        assert np.abs(np.sort(values[lane]) - exact).max() <= 1e-12 * exact[-1]
        np.testing.assert_array_equal(found[lane], by_lapack(on, off))


def test_without_numba_there_is_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "ndt_offline.replay.lockstep", raising=False)
    monkeypatch.delattr("ndt_offline.replay.lockstep", raising=False)
    assert find_solver.__wrapped__() is None


def test_where_lapack_rounds_otherwise_there_is_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = solver.alone

    def rounded(form: Form) -> np.ndarray | None:
        values = alone(form)
        return None if values is None else np.nextafter(values, np.inf)

    assert find_solver.__wrapped__() is not None
    monkeypatch.setattr(solver, "alone", rounded)
    assert find_solver.__wrapped__() is None
