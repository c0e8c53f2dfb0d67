"""Eigenvalues of a symmetric matrix, values only (LAPACK dsytrd, dsterf)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import lapack

from ndt_offline.replay.workspace import Array

# Columns that dsytrd reduces at a time, by side. LAPACK's own choice of 32 is 15 % slower for the
# few hundred of a small layer, where most of the time goes into products with one vector.
_PANELS = ((384, 10), (768, 16))


def eigenvalues(symmetric: Any) -> Array:
    """Ascending eigenvalues [k] of a matrix [k, k] given by its lower triangle (overwritten).

    Computed in the matrix's own precision, float32 or float64.
    """
    side = len(symmetric)
    if side == 1:
        return symmetric[0].astype(np.float64)
    single = symmetric.dtype == np.float32
    reduce, solve = (lapack.ssytrd, lapack.ssterf) if single else (lapack.dsytrd, lapack.dsterf)
    panel = next((width for limit, width in _PANELS if side <= limit), 32)
    _, diagonal, off, _, info = reduce(symmetric, lower=1, lwork=panel * side, overwrite_a=1)
    values, failed = solve(diagonal, off, overwrite_d=1, overwrite_e=1)
    if info or failed:
        raise ArithmeticError(f"LAPACK: tridiagonal form {info}, its values {failed}")
    return values.astype(np.float64, copy=False)
