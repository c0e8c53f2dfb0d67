"""Eigenvalues of tridiagonal forms of one side, several at once: LAPACK's, to the last bit.

What LAPACK would split or scale before it begins goes to LAPACK itself. Whether the others are
equal is tried once in each process: LAPACK's code may have been compiled to round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ndt_offline.replay.tridiagonal import Form
from ndt_offline.replay.workspace import Array

FEWEST = 5  # forms for which the lanes are quicker than one after another
SMALLEST, LARGEST = 1e-100, 1e140  # between these nothing is scaled before it is squared
TRIED = 64  # side of the forms with which it is tried

Solve = Callable[[Sequence[Form]], list[Array | None]]


@cache
def find_solver() -> Solve | None:
    """Ascending eigenvalues of at most 16 forms of one side; None for one without convergence.

    There is no such solver without numba, or where it disagrees with LAPACK. The forms may be
    overwritten.
    """
    try:
        from ndt_offline.replay import lockstep
    except Exception:  # a numba that cannot be used is as good as none
        return None
    lanes, fields = lockstep.LANES, lockstep.FIELDS

    def together(forms: Sequence[Form]) -> list[Array | None]:
        side = len(forms[0].diagonal)
        work, found = np.zeros((side + 1, fields, lanes)), np.empty((lanes, side))
        failed = np.arange(lanes) >= len(forms)
        for lane, form in enumerate(forms):
            # From the end with the larger entry; LAPACK walks the other way instead.
            turn = -1 if abs(form.diagonal[-1]) < abs(form.diagonal[0]) else 1
            work[:side, 0, lane] = form.diagonal[::turn]
            np.square(form.off[::turn], out=work[: side - 1, 1, lane])
        lockstep.solve(work.reshape(-1), found, failed)
        found.sort(axis=1)
        return [None if failed[lane] else found[lane] for lane in range(len(forms))]

    def solve(forms: Sequence[Form]) -> list[Array | None]:
        usual = [index for index, form in enumerate(forms) if is_usual(form)]
        if len(usual) < FEWEST:
            return [alone(form) for form in forms]
        known = dict(zip(usual, together([forms[index] for index in usual]), strict=True))
        return [known[i] if i in known else alone(form) for i, form in enumerate(forms)]

    return solve if _agrees(solve) else None


def is_usual(form: Form) -> bool:
    """Whether LAPACK would begin with it as it is: neither scaled nor in several parts."""
    diagonal, off = np.abs(form.diagonal), np.abs(form.off)
    if diagonal.dtype != np.float64 or not len(off):
        return False
    if not SMALLEST < max(diagonal.max(), off.max()) < LARGEST:  # nor NaN
        return False
    roots = np.sqrt(diagonal)
    return bool((off > roots[:-1] * roots[1:] * 2.0**-53).all())


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
