"""Eigenvalues of a symmetric matrix, values only (LAPACK dsytrd, dsterf)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

from ndt_offline.replay.workspace import Array

# Columns that dsytrd reduces at a time, by side. LAPACK's own choice of 32 is 15 % slower for the
# few hundred of a small layer, where most of the time goes into products with one vector.
_PANELS = ((384, 10), (768, 16))


@dataclass(frozen=True)
class Form:
    """The tridiagonal form of a symmetric matrix: diagonal [k] and what is beside it [k - 1].

    zeros: rows and columns of zeros that the matrix has besides.
    """

    diagonal: Any
    off: Any
    zeros: int = 0

    def eigenvalues(self) -> Array:
        """Ascending, [k], without those of the zeros. The form is overwritten."""
        if not len(self.off):
            return self.diagonal.astype(np.float64)
        single = self.diagonal.dtype == np.float32
        solve = lapack.ssterf if single else lapack.dsterf
        values, failed = solve(self.diagonal, self.off, overwrite_d=1, overwrite_e=1)
        if failed:
            raise ArithmeticError(f"LAPACK: values of a tridiagonal form {failed}")
        return values.astype(np.float64, copy=False)


def tridiagonal(symmetric: Any) -> Form:
    """The form of a matrix [k, k], k > 1, given by its lower triangle (overwritten).

    Computed in the matrix's own precision, float32 or float64.
    """
    side = len(symmetric)
    reduce = lapack.ssytrd if symmetric.dtype == np.float32 else lapack.dsytrd
    panel = next((width for limit, width in _PANELS if side <= limit), 32)
    _, diagonal, off, _, info = reduce(symmetric, lower=1, lwork=panel * side, overwrite_a=1)
    if info:
        raise ArithmeticError(f"LAPACK: tridiagonal form {info}")
    return Form(diagonal, off)


def eigenvalues(symmetric: Any) -> Array:
    """Ascending eigenvalues [k] of a matrix [k, k] given by its lower triangle (overwritten)."""
    if len(symmetric) == 1:
        return symmetric[0].astype(np.float64)
    return tridiagonal(symmetric).eigenvalues()
