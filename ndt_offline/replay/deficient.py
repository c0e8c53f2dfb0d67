"""Small singular values, where the Gram matrix has lost them to rounding.

A layer that widens (256 features to 1024) has a matrix of rank 257 whose other values are the
rounding of its entries, 1e-8 of the largest: too small to be seen in a Gram matrix, too many to be
left out. With a gap in the spectrum they are found by taking the large part out of the matrix
itself; without a gap by QR. Both keep 1e-9 of the largest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from ndt_offline.replay.tridiagonal import eigenvalues
from ndt_offline.replay.workspace import Array, Workspace, slices

TRUSTED = 1e-6  # a Gram value s is off by about 5e-16 s1^2 / s: 5e-10 s1 at 1e-6 s1
ALLOWED = 1e-10  # of s1: what leaving the coupling of the two parts out may change

Order = npt.NDArray[np.intp]


def numerical_rank(gram: Array, work: Workspace) -> tuple[int, Array, Order]:
    """Rank r at `TRUSTED`, lower factor L [k, k] (its first r columns), and the order of pivots.

    Cholesky's decomposition with complete pivoting (LAPACK dpstrf), stopped where what remains of
    the diagonal is below `TRUSTED`^2 of its sum.
    """
    factor = work.take("factor", *gram.shape, "F")
    np.copyto(factor, gram)
    tolerance = TRUSTED**2 * float(gram.diagonal().sum())
    factor, pivots, rank, _ = lapack.dpstrf(factor, tol=tolerance, lower=1, overwrite_a=1)
    return int(rank), factor, pivots.astype(np.intp) - 1


def split_values(
    matrix: Any, factor: Array, order: Order, rank: int, work: Workspace, power: float
) -> Array | None:
    """All singular values from two smaller problems, descending; None where no gap parts them.

    With A = [A1, A2] in the order of pivots and X = A1^+ A2: the small values are those of
    (A2 - A1 X) K^-T, K K' = I + X' X, up to a relative (s_small / s_large)^2; the large ones those
    of the first r rows of Cholesky's factor, up to s_small^2 / s_large. Both are checked.
    """
    head, tail = np.tril(factor[:rank, :rank]), factor[rank:, :rank]
    top = np.asfortranarray(head.T @ head + tail.T @ tail)
    large = np.sqrt(np.maximum(eigenvalues(top), 0.0))[::-1]
    coefficients = blas.dtrsm(1.0, head, tail, side=1, lower=1)  # X' = L21 L11^-1 [q, r]
    rest = _residual_gram(matrix, order, coefficients, work, power)
    metric = blas.dsyrk(1.0, coefficients, lower=1)
    metric[np.diag_indices_from(metric)] += 1.0
    root, failed = lapack.dpotrf(metric, lower=1, overwrite_a=1)
    reduced, wrong = lapack.dsygst(rest, root, lower=1, overwrite_a=1)
    if failed or wrong:
        return None
    small = np.sqrt(np.maximum(eigenvalues(reduced), 0.0))[::-1]
    return np.concatenate([large, small]) if _parted(large, small) else None


def _parted(large: Array, small: Array) -> bool:
    """Whether the gap makes the errors of both parts smaller than `ALLOWED`."""
    top, last, first = large[0], large[-1], small[0]
    coupled = first * (first / last) ** 2 if last else top
    dropped = first**2 / (2 * last) if last else top
    relative = (first / max(last, 1e-4 * top)) ** 2
    return bool(max(coupled, dropped) <= ALLOWED * top and relative <= 1e-7)


def _residual_gram(
    matrix: Any, order: Order, coefficients: Array, work: Workspace, power: float
) -> Array:
    """Lower triangle of B' B for B = A2 - A1 X, the long side in slices."""
    count, rank = coefficients.shape
    first, last = order[:rank], order[rank:]
    gram, beta = work.take("rest", count, count, "F"), 0.0
    for piece, tall in slices(matrix, work, power):
        across = piece.T if tall else piece
        residual = np.asfortranarray(across[last])
        known = np.asfortranarray(across[first])
        residual = blas.dgemm(-1.0, coefficients, known, beta=1.0, c=residual, overwrite_c=1)
        gram = blas.dsyrk(1.0, residual, beta=beta, c=gram, lower=1, overwrite_c=1)
        beta = 1.0
    return gram


def triangle_values(matrix: Any, power: float) -> Array:
    """Singular values by QR and an SVD of the triangle, for any spectrum; the long side in slices.

    Several times slower than the Gram matrix.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    side = tall.shape[1]
    step = max(4 * side, 4096)
    triangle = np.zeros((0, side))
    for start in range(0, tall.shape[0], step):
        part = np.asarray(tall[start : start + step], np.float64) * power
        triangle = np.linalg.qr(np.concatenate([triangle, part]), mode="r")
    return np.linalg.svd(triangle, compute_uv=False)
