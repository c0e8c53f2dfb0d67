"""Eigenvalues of tridiagonal forms of one side, several at once: LAPACK's, to the last bit.

What LAPACK would split or scale before it begins goes to LAPACK itself. Whether the others are
equal is tried once in each process: LAPACK's code may have been compiled to round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from ndt_offline.replay.tridiagonal import Form
from ndt_offline.replay.workspace import Array

FEWEST = 5  # forms for which the lanes are quicker than one after another
SMALLEST, LARGEST = 1e-100, 1e140  # between these nothing is scaled before it is squared
TRIED = 64  # side of the forms with which it is tried

Solve = Callable[[Sequence[Form]], list[Array | None]]


@cache
def find_solver() -> Solve | None:
    """Ascending eigenvalues of at most 16 forms of one side; None where one does not converge.

    There is no such solver without numba, or where it disagrees with LAPACK. Forms are float64
    and may be overwritten.
    """
    try:
        from ndt_offline.replay import lockstep
    except Exception:  # a numba that cannot be used is as good as none
        return None
    lanes, fields = lockstep.LANES, lockstep.FIELDS

    def together(diagonals: Array, offs: Array) -> list[Array | None]:
        count, side = diagonals.shape
        # From the end with the larger entry; LAPACK walks the other way instead.
        turned = np.abs(diagonals[:, -1]) < np.abs(diagonals[:, 0])
        diagonals[turned], offs[turned] = diagonals[turned, ::-1], offs[turned, ::-1]
        work, found = np.zeros((side + 1, fields, lanes)), np.empty((lanes, side))
        work[:side, 0, :count], work[: side - 1, 1, :count] = diagonals.T, (offs * offs).T
        failed = np.arange(lanes) >= count
        lockstep.solve(work.reshape(-1), found, failed)
        found.sort(axis=1)
        return [None if failed[lane] else found[lane].copy() for lane in range(count)]

    def solve(forms: Sequence[Form]) -> list[Array | None]:
        diagonals = np.array([form.diagonal for form in forms], np.float64)
        offs = np.array([form.off for form in forms], np.float64)
        usual = are_usual(diagonals, offs)
        if np.count_nonzero(usual) < FEWEST:
            return [alone(form) for form in forms]
        known = iter(together(diagonals[usual], offs[usual]))
        return [next(known) if usual[i] else alone(form) for i, form in enumerate(forms)]

    return solve if _agrees(solve) else None


def are_usual(diagonals: Array, offs: Array) -> npt.NDArray[np.bool_]:
    """Of forms [n, k] and [n, k - 1]: whether LAPACK would begin with each as it is.

    That is neither scaled, nor in several parts. Forms with NaN are not usual.
    """
    diagonals, offs = np.abs(diagonals), np.abs(offs)
    if not offs.size:
        return np.zeros(len(diagonals), np.bool_)
    tops, roots = np.maximum(diagonals.max(axis=1), offs.max(axis=1)), np.sqrt(diagonals)
    whole = (offs > roots[:, :-1] * roots[:, 1:] * 2.0**-53).all(axis=1)
    return np.asarray(whole & (tops > SMALLEST) & (tops < LARGEST))


def alone(form: Form) -> Array | None:
    """One form's eigenvalues by LAPACK; None without convergence."""
    try:
        return form.eigenvalues()
    except ArithmeticError:
        return None


def _agrees(solve: Solve) -> bool:
    """Whether both are equal for forms of all kinds; False too where compiling fails."""
    random = np.random.default_rng(0)
    forms = []
    for scale in np.linspace(0.0, 30.0, 2 * FEWEST):
        # L L' of a bidiagonal L: the form of a Gram matrix, whose values fall by e^scale.
        lower = np.exp(-np.linspace(0.0, scale / 2, TRIED)) * random.uniform(0.5, 1.0, TRIED)
        below = lower[:-1] * random.standard_normal(TRIED - 1)
        diagonal = lower**2
        diagonal[1:] += below**2
        forms.append(Form(diagonal, lower[:-1] * below))
    expected = [alone(replace(f, diagonal=f.diagonal.copy(), off=f.off.copy())) for f in forms]
    try:
        found = solve(forms)
    except Exception:
        return False
    return all(
        one is not None and other is not None and np.array_equal(one, other)
        for one, other in zip(found, expected, strict=True)
    )
