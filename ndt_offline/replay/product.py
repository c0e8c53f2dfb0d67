"""Singular values of a layer that widens, from its two factors and the matrix itself.

A linear layer with k inputs and more outputs has rank k + 1 at most. In float32 its other values
are the rounding of its entries, 5e-8 of the largest: they depend on the order in which a machine
adds, and finding them takes most of a transformer's time. Here they are 0; the values that the
layer has are those of the matrix as it came, seen from the space of its inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from ndt_offline.replay.spectra import gram_matrix, singular_values
from ndt_offline.replay.workspace import ELEMENTS, SHORTEST, Array, Workspace

# |W D|^2 over s1^2: beyond it directions that the weights cancel would have lost digits in the
# Gram matrix of the inputs, which keeps 2e-16 of what was there before: 5e-7 of s at 1e-4 s1.
CANCELLED = 30.0
# Of the inputs' scale: directions below it are taken from the factors alone, because a projection
# onto them would divide by little more than rounding.
FAINT_INPUT = 1e-5


def product_values(
    matrix: Any, inputs: Any, weight: Any, bias: Any | None, work: Workspace | None = None
) -> Array | None:
    """Descending singular values [min(m, n)] of `matrix` [m, n], which is x W' + b in float32.

    x [m, k], W [n, k], b [n] or None. With G = X' X of X = [x, 1], scaled to a diagonal of ones by
    D, and G = L L' with pivots: B = L' D [W, b]' + L^-1 D X' E [k + 1, n], E what rounding added,
    is the matrix in an orthonormal basis of the inputs' space. Its values are given, then zeros.
    Relative error 1e-6 for s >= 1e-4 s1; what is left out is below 1e-7 s1. Not for float64 data.
    None where the matrix alone must be asked: large parts that cancel, or NaN.
    """
    work = work if work is not None else Workspace()
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are looked for below
        gram, seen = _products(matrix, inputs, bias is not None, work)
    return values_of_products(gram, seen, weight, bias, min(matrix.shape), work)


def values_of_products(
    gram: Array, seen: Array, weight: Any, bias: Any | None, count: int, work: Workspace
) -> Array | None:
    """The same from X' X [k, k] (overwritten), X' A [k, n] (too) and `count`, min(m, n)."""
    factor = np.asarray(weight, np.float64)
    if bias is not None:
        factor = np.concatenate([factor, np.asarray(bias, np.float64)[:, None]], axis=1)
    if not (np.isfinite(gram.diagonal()).all() and np.isfinite(factor.sum())):
        return None
    scale = np.sqrt(gram.diagonal())
    factor = factor * scale
    scale[scale == 0.0] = 1.0
    gram /= scale[:, None] * scale
    seen /= scale[:, None]
    found = singular_values(_small(gram, factor, seen), work)
    if not found[0] ** 2 * CANCELLED >= _largest(factor) ** 2:
        return None
    values = np.zeros(count)
    values[: len(found)] = found
    return values


def _small(gram: Array, factor: Array, seen: Array) -> Array:
    """B [r, n] from the scaled G [k, k], W D [n, k] and D X' A [k, n]."""
    lower, pivots, rank, _ = lapack.dpstrf(gram.copy(order="F"), lower=1, overwrite_a=1)
    order = pivots - 1
    columns, lower = factor[:, order], np.tril(lower)[:, :rank]
    small = blas.dgemm(1.0, lower, columns, trans_a=1, trans_b=1)
    clear = int(np.count_nonzero(lower.diagonal() > FAINT_INPUT))
    rounding = seen[order[:clear]] - gram[np.ix_(order[:clear], order)] @ columns.T
    small[:clear] += blas.dtrsm(1.0, lower[:clear, :clear], rounding, lower=1)
    return small


def _products(matrix: Any, inputs: Any, ones: bool, work: Workspace) -> tuple[Array, Array]:
    """X' X [k, k] and X' A [k, n] for X = inputs [m, k], or [inputs, 1] (k one larger)."""
    side, columns = inputs.shape[1], matrix.shape[1]
    known = gram_matrix(inputs, work, long=0)
    gram, seen = np.empty((side + ones, side + ones)), np.zeros((side + ones, columns))
    gram[:side, :side] = np.tril(known) + np.tril(known, -1).T
    step = max(SHORTEST, ELEMENTS // columns)
    for start in range(0, len(matrix), step):
        piece = work.take("slice", len(matrix[start : start + step]), columns)
        part = work.take("inputs", len(piece), side)
        np.copyto(piece, matrix[start : start + step])
        np.copyto(part, inputs[start : start + step])
        seen[:side] += part.T @ piece
        if ones:
            seen[side] += piece.sum(axis=0)
    if ones:
        gram[side, :side] = gram[:side, side] = inputs.sum(axis=0, dtype=np.float64)
        gram[side, side] = len(inputs)
    return gram, seen


def _largest(matrix: Array, rounds: int = 8) -> float:
    """The largest singular value, from below, within a few percent: powers of A' A."""
    vector = matrix[int(np.argmax(np.einsum("ij,ij->i", matrix, matrix)))]
    largest = 0.0
    for _ in range(rounds):
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            break
        image = matrix @ (vector / length)
        largest = float(np.linalg.norm(image))
        vector = image @ matrix
    return largest
