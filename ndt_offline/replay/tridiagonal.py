"""Eigenvalues of a symmetric matrix, values only: LAPACK dsytrd or `householder`, then dsterf."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import lapack

from ndt_offline.replay.workspace import Array, Reduction

# Columns that dsytrd reduces at a time, by side. LAPACK's own choice of 32 is 15 % slower for the
# few hundred of a small layer, where most of the time goes into products with one vector.
_PANELS = ((384, 10), (768, 16))

# Sides for which one compiled pass is 1.3 to 1.8 times as quick as LAPACK, on two cores at once
# too. Larger triangles leave the cache, where LAPACK's fewer changes of the matrix count.
ONE_PASS = range(2, 1025)
SMALLEST, LARGEST = 1e-100, 1e100  # of the diagonal's largest entry, which bounds all others


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


@cache
def find_reduction() -> Reduction | None:
    """What reduces small matrices in one compiled pass each; None without a numba that works.

    It rounds otherwise than LAPACK does, and is as exact. None too where LAPACK has wider vectors:
    that it is quicker was measured without them.
    """
    try:
        from llvmlite import binding

        from ndt_offline.replay import householder

        if binding.get_host_cpu_features().get("avx512f"):
            return None
        entries = np.random.default_rng(0).standard_normal((70, 66))
        gram = entries.T @ entries
        found = eigenvalues(gram.copy(order="F"), householder.reduce)
    except Exception:
        return None
    agrees = np.abs(found - np.linalg.eigvalsh(gram)).max() < 1e-12 * found[-1]
    return householder.reduce if agrees else None


def tridiagonal(symmetric: Any, reduction: Reduction | None = None) -> Form:
    """The form of a matrix [k, k], k > 1, given by its lower triangle (overwritten).

    Computed in the matrix's own precision, float32 or float64. The matrix has no eigenvalues
    under zero but by rounding: no entry is larger than the largest on the diagonal. reduction:
    used in LAPACK's place where it is quicker.
    """
    side = len(symmetric)
    usual = symmetric.dtype == np.float64 and SMALLEST < symmetric.diagonal().max() < LARGEST
    if reduction and usual and side in ONE_PASS:
        diagonal, off = np.empty(side), np.empty(side - 1)
        reduction(np.ascontiguousarray(symmetric.T), diagonal, off)
        return Form(diagonal, off)
    reduce = lapack.ssytrd if symmetric.dtype == np.float32 else lapack.dsytrd
    panel = next((width for limit, width in _PANELS if side <= limit), 32)
    _, diagonal, off, _, info = reduce(symmetric, lower=1, lwork=panel * side, overwrite_a=1)
    if info:
        raise ArithmeticError(f"LAPACK: tridiagonal form {info}")
    return Form(diagonal, off)


def eigenvalues(symmetric: Any, reduction: Reduction | None = None) -> Array:
    """Ascending eigenvalues [k] of a matrix [k, k] given by its lower triangle (overwritten)."""
    if len(symmetric) == 1:
        return symmetric[0].astype(np.float64)
    return tridiagonal(symmetric, reduction).eigenvalues()
