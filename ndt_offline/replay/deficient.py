"""Small singular values, where the Gram matrix has lost them to rounding.

A layer that widens (256 features to 1024) has a matrix of rank 257 whose other values are the
rounding of its entries, 1e-8 of the largest: too small to be seen in a Gram matrix, too many to be
left out. With a gap in the spectrum they are found by taking the large part out of the matrix
itself; without a gap by QR. Both keep 1e-9 of the largest value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from ndt_offline.replay.tridiagonal import eigenvalues
from ndt_offline.replay.workspace import Array, Workspace, slices

# A Gram matrix's eigenvalues are off by up to 2 sqrt(k) 2e-16 s1^2 where all entries have one sign
# (seen for all ones; a tenth of it for random ones): a value s by sqrt(k) 2e-16 s1^2 / s.
TRUSTED = 2.5e-7  # times sqrt(k): there that is 9e-10 s1
ALLOWED = 1e-10  # of s1: what leaving the coupling of the two parts out may change
# The small part is reduced in float32, which loses at most 5e-4 of its own largest value.
FAINT = 1e-6  # of s1: above it that would be too much

Order = npt.NDArray[np.intp]
Single = npt.NDArray[np.float32]


def trusted_share(side: int) -> float:
    """The share of s1 from which on a value is taken from the Gram matrix [side, side]."""
    return TRUSTED * math.sqrt(side)


def numerical_rank(gram: Array, work: Workspace) -> tuple[int, Array, Order]:
    """Rank r at `trusted_share`, lower factor L [k, k] (its first r columns), order of pivots.

    Cholesky's decomposition with complete pivoting (LAPACK dpstrf), stopped where what remains of
    the diagonal is below that share's square of its sum.
    """
    factor = work.take("second", len(gram), len(gram), "F")
    np.copyto(factor, gram)
    tolerance = trusted_share(len(gram)) ** 2 * float(gram.diagonal().sum())
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
    large = np.sqrt(np.maximum(eigenvalues(top, work.reduction), 0.0))[::-1]
    coefficients = blas.dtrsm(1.0, head, tail, side=1, lower=1)  # X' = L21 L11^-1 [q, r]
    # Columns in the order of memory are gathered twice as fast.
    first, last = np.argsort(order[:rank]), np.argsort(order[rank:])
    coefficients = np.asfortranarray(coefficients[np.ix_(last, first)])
    order = np.concatenate([np.sort(order[:rank]), np.sort(order[rank:])])
    # Powers of two are exact; without it squares of the small part vanish in float32.
    scale = 2.0 ** (23 - np.floor(np.log2(large[0])))
    rest = _residual_gram(matrix, order, coefficients, scale, work, power)
    metric = blas.ssyrk(1.0, coefficients.astype(np.float32, order="F"), lower=1)
    metric[np.diag_indices_from(metric)] += 1.0
    root, failed = lapack.spotrf(metric, lower=1, overwrite_a=1)
    reduced, wrong = lapack.ssygst(rest, root, lower=1, overwrite_a=1)
    if failed or wrong:
        return None
    small = np.sqrt(np.maximum(eigenvalues(reduced), 0.0))[::-1] / scale
    return np.concatenate([large, small]) if _parted(large, small) else None


def _parted(large: Array, small: Array) -> bool:
    """Whether the gap makes the errors of both parts smaller than `ALLOWED`."""
    top, last, first = large[0], large[-1], small[0]
    if last <= 0.0 or first > FAINT * top:
        return False
    coupled = first * (first / last) ** 2
    dropped = first**2 / (2 * last)
    relative = (first / max(last, 1e-4 * top)) ** 2
    return bool(max(coupled, dropped) <= ALLOWED * top and relative <= 1e-7)


def _residual_gram(
    matrix: Any, order: Order, coefficients: Array, scale: float, work: Workspace, power: float
) -> Single:
    """Lower triangle of `scale`^2 B' B for B = A2 - A1 X; B in float64, the product in float32."""
    count, rank = coefficients.shape
    gram, beta = np.empty((count, count), np.float32, order="F"), 0.0
    tall = matrix.shape[0] >= matrix.shape[1]
    for piece in slices(matrix, work, power, tall):
        known, residual = _columns(piece, order[:rank], tall), _columns(piece, order[rank:], tall)
        residual = blas.dgemm(-1.0, coefficients, known, beta=1.0, c=residual, overwrite_c=1)
        rounded = np.empty(residual.shape, np.float32, order="F")
        np.multiply(residual, scale, out=rounded, casting="same_kind")
        gram = blas.ssyrk(1.0, rounded, beta=beta, c=gram, lower=1, overwrite_c=1)
        beta = 1.0
    return gram


def _columns(piece: Array, chosen: Order, tall: bool) -> Array:
    """Features `chosen` of a piece as [features, piece], in Fortran's order."""
    return np.take(piece, chosen, axis=1).T if tall else np.asfortranarray(piece[chosen])


def triangle_values(matrix: Any, power: float) -> Array:
    """Singular values by QR and an SVD of the triangle, for any spectrum; the long side in slices.

    Several times slower than the Gram matrix.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    side = tall.shape[1]
    step = max(2 * side, 4096)
    triangle = np.zeros((0, side))
    for start in range(0, tall.shape[0], step):
        part = np.asarray(tall[start : start + step], np.float64) * power
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, part]), mode="r"))
    return np.linalg.svd(triangle, compute_uv=False)
