"""Singular values of a matrix, values only, by the float64 Gram matrix of its smaller side.

For A [m, n] with k = min(m, n): the eigenvalues of A A' or A' A [k, k], by reduction to
tridiagonal form and the Pal-Walker-Kahan QL iteration (`tridiagonal`), square roots.
With float32 data this is closer to the exact values than a float32 SVD, and several times faster.
Squaring loses what lies under 1e-8 of the largest value, so where values fall below `trusted_share`
they are found again without squaring: see `deficient`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.linalg import blas

from ndt_offline.replay.deficient import (
    numerical_rank,
    split_values,
    triangle_values,
    trusted_share,
)
from ndt_offline.replay.gain import SIDES
from ndt_offline.replay.tridiagonal import Form, eigenvalues, tridiagonal
from ndt_offline.replay.workspace import Array, Workspace, slices

# Squares of entries between these neither overflow nor vanish in float64.
SMALLEST, LARGEST = 1e-140, 1e140
RANK_FIRST = 384  # from this side on, knowing the rank first is cheaper than a reduction in vain


def singular_values(matrix: Any, work: Workspace | None = None) -> Array:
    """Descending singular values [min(m, n)] of a real matrix [m, n], float64.

    Accurate to 1e-6 relative for s >= 1e-4 s1 and to 1e-9 s1 absolutely, whatever the rank. A
    matrix with NaN or infinite entries gives NaN throughout; check the status beside it. `work`
    holds the buffers for the next call; memory is about 16 k^2 bytes and a few megabytes for a
    long side of any length, unless values below 1e-6 s1 are found.
    """
    found = begin(matrix, work)
    assert not isinstance(found, Form)
    return found


def begin(matrix: Any, work: Workspace | None = None, waits: bool = False) -> Array | Form:
    """`singular_values`; or, of a matrix that `waits` for others, the form it has got to.

    With `trusted` values of that form's eigenvalues it is at its end. Where they are None, the
    matrix must be asked again, without waiting.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"expected a matrix, got shape {matrix.shape}")
    if min(matrix.shape) == 0:
        return np.zeros(0)
    if matrix.strides[0] < matrix.strides[1]:
        matrix = matrix.T  # the same values, and rows that lie together in memory
    work = work if work is not None else Workspace()
    gram = gram_matrix(matrix, work)
    top = float(np.sqrt(gram.diagonal().max()))  # NaN and infinity show on the diagonal
    if SMALLEST < top < LARGEST:
        return _values(matrix, gram, work, 1.0, waits)
    scale = float(np.abs(matrix).max())
    if not np.isfinite(scale):
        return np.full(len(gram), np.nan)
    if scale == 0.0:
        return np.zeros(len(gram))
    power = 2.0 ** -np.floor(np.log2(scale))  # powers of two scale exactly
    scaled = _values(matrix, gram_matrix(matrix, work, power), work, power, False)
    assert not isinstance(scaled, Form)
    return scaled / power


def trusted(ascending: np.ndarray) -> Array | None:
    """Descending square roots of a Gram matrix's eigenvalues; None where small ones are lost."""
    values = np.sqrt(np.maximum(ascending, 0.0))[::-1]
    least = trusted_share(len(values)) * values[0]
    return np.ascontiguousarray(values) if values[-1] >= least else None


def gram_matrix(matrix: Any, work: Workspace, power: float = 1.0, long: int | None = None) -> Array:
    """Lower triangle of A A' or A' A, the smaller (or summed over axis `long`), in slices."""
    tall = matrix.shape[0] >= matrix.shape[1] if long is None else long == 0
    side = matrix.shape[int(tall)]
    gram, beta = work.take("gram", side, side, "F"), 0.0
    for piece in slices(matrix, work, power, tall):
        # piece.T is in Fortran's order: nothing is copied.
        gram = blas.dsyrk(
            1.0, piece.T, beta=beta, c=gram, trans=0 if tall else 1, lower=1, overwrite_c=1
        )
        beta = 1.0
    return gram


def _values(matrix: Any, gram: Array, work: Workspace, power: float, waits: bool) -> Array | Form:
    """Singular values with the Gram matrix known; exact zero rows and columns are left out."""
    alive = np.flatnonzero(gram.diagonal())
    if len(alive) == len(gram):
        return _alive_values(lambda: matrix, gram, work, power, waits)
    kept = work.take("alive", len(alive), len(alive), "F")
    kept[...] = gram[np.ix_(alive, alive)]
    tall = matrix.shape[0] >= matrix.shape[1]

    def part() -> Any:
        return matrix[:, alive] if tall else matrix[alive]

    found, zeros = _alive_values(part, kept, work, power, waits), len(gram) - len(alive)
    if isinstance(found, Form):
        return replace(found, zeros=zeros)
    return np.concatenate([found, np.zeros(zeros)])


def _alive_values(
    matrix: Callable[[], Any], gram: Array, work: Workspace, power: float, waits: bool
) -> Array | Form:
    side = len(gram)
    rank, factor, order = side, gram, np.arange(side)
    if side >= RANK_FIRST:
        rank, factor, order = numerical_rank(gram, work)
    if rank == side and waits and side in SIDES:
        return tridiagonal(gram, work.reduction)  # who waits does not come back to it
    if rank == side:
        reduced = work.take("second", side, side, "F")
        np.copyto(reduced, gram)
        values = trusted(eigenvalues(reduced, work.reduction))
        if values is not None:
            return values
        rank, factor, order = numerical_rank(gram, work)
    split = split_values(matrix(), factor, order, rank, work, power) if rank < side else None
    return triangle_values(matrix(), power) if split is None else split
