"""Singular values of a layer that widens, from its two factors and the matrix itself.

A linear layer with k inputs and more outputs has rank k + 1 at most. In float32 its other values
are the rounding of its entries, 5e-8 of the largest: they depend on the order in which a machine
adds, and finding them takes most of a transformer's time. Here they are 0; the values that the
layer has are those of the matrix as it came, seen from the space of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from ndt_offline.replay.spectra import gram_matrix, singular_values
from ndt_offline.replay.workspace import ELEMENTS, SHORTEST, Array, Workspace

# |W D|^2 over s1^2: beyond it directions that the weights cancel would have lost digits in the
# Gram matrix of the inputs, which keeps 2e-16 of what was there before: 5e-7 of s at 1e-4 s1.
CANCELLED = 30.0
# Of the inputs' scale: directions below it are taken from the factors alone, because a projection
# onto them would divide by little more than rounding.
FAINT_INPUT = 1e-5
# Rounding E moves a value by u' E v: as much as one entry is off, where errors are independent
# (less was measured). Where five times that is less than the accuracy promised, E is left out.
FROM, RELATIVE, STRAY, ROWS = 1e-4, 1e-6, 5.0, 64


def product_values(
    matrix: Any, inputs: Any, weight: Any, bias: Any | None, work: Workspace | None = None
) -> Array | None:
    """Descending singular values [min(m, n)] of `matrix` [m, n], which is x W' + b in float32.

    x [m, k], W [n, k], b [n] or None. With G = X' X of X = [x, 1], scaled to a diagonal of ones by
    D, and G = L L' with pivots: B = L' D [W, b]' + L^-1 D X' E [k + 1, n], E what rounding added,
    is the matrix in an orthonormal basis of the inputs' space. Its values are given, then zeros;
    the second term, which takes most of the time, only where it matters.
    Relative error 1e-6 for s >= 1e-4 s1; what is left out is below 1e-7 s1. Not for float64 data.
    None where the matrix alone must be asked: large parts that cancel, or NaN.
    """
    work = work if work is not None else Workspace()
    ones = bias is not None
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are looked for below
        basis = _basis(_gram(inputs, ones, work), weight, bias)
    if basis is None or not (np.isfinite(matrix.max()) and np.isfinite(matrix.min())):
        return None
    found = singular_values(basis.exact, work)
    least = found[found >= FROM * found[0]][-1]
    if STRAY * _rounding(matrix, inputs, weight, bias) > RELATIVE * least:
        found = singular_values(
            basis.exact + basis.rounding(_seen(matrix, inputs, ones, work)), work
        )
    return basis.padded(found, min(matrix.shape))


def values_of_products(
    gram: Array, seen: Array, weight: Any, bias: Any | None, count: int, work: Workspace
) -> Array | None:
    """The same from X' X [k, k] (overwritten), X' A [k, n] and `count`, min(m, n)."""
    basis = _basis(gram, weight, bias)
    if basis is None:
        return None
    return basis.padded(singular_values(basis.exact + basis.rounding(seen), work), count)


@dataclass(frozen=True)
class _Basis:
    """An orthonormal basis of the inputs' space: scaled G = L L' [k, k] in the order of pivots."""

    gram: Array
    lower: Array
    order: npt.NDArray[np.intp]
    scale: Array
    factor: Array  # W D [n, k]

    @property
    def exact(self) -> Array:
        """L' D W' [r, n]: the matrix in that basis, but for rounding."""
        columns = self.factor[:, self.order]
        return np.asarray(blas.dgemm(1.0, self.lower, columns, trans_a=1, trans_b=1))

    def rounding(self, seen: Array) -> Array:
        """L^-1 D X' E [r, n] by what the matrix has: X' A."""
        found = np.zeros((self.lower.shape[1], len(self.factor)))
        clear = int(np.count_nonzero(self.lower.diagonal() > FAINT_INPUT))
        at = self.order[:clear]
        known = self.gram[np.ix_(at, self.order)] @ self.factor[:, self.order].T
        off = seen[at] / self.scale[at, None] - known
        found[:clear] = blas.dtrsm(1.0, self.lower[:clear, :clear], off, lower=1)
        return found

    def padded(self, found: Array, count: int) -> Array | None:
        """The values, and zeros; None where the inputs' large parts cancel, or for NaN."""
        if not found[0] ** 2 * CANCELLED >= _largest(self.factor) ** 2:
            return None
        values = np.zeros(count)
        values[: len(found)] = found
        return values


def _basis(gram: Array, weight: Any, bias: Any | None) -> _Basis | None:
    factor = np.asarray(weight, np.float64)
    if bias is not None:
        factor = np.concatenate([factor, np.asarray(bias, np.float64)[:, None]], axis=1)
    if not (np.isfinite(gram.diagonal()).all() and np.isfinite(factor.sum())):
        return None
    scale = np.sqrt(gram.diagonal())
    factor = factor * scale
    scale[scale == 0.0] = 1.0
    gram /= scale[:, None] * scale
    lower, pivots, rank, _ = lapack.dpstrf(gram.copy(order="F"), lower=1, overwrite_a=1)
    return _Basis(gram, np.tril(lower)[:, :rank], pivots.astype(np.intp) - 1, scale, factor)


def _gram(inputs: Any, ones: bool, work: Workspace) -> Array:
    """X' X [k, k] for X = inputs [m, k], or [inputs, 1] (k one larger)."""
    side = inputs.shape[1]
    known, gram = gram_matrix(inputs, work, long=0), np.empty((side + ones, side + ones))
    gram[:side, :side] = np.tril(known) + np.tril(known, -1).T
    if ones:
        gram[side, :side] = gram[:side, side] = inputs.sum(axis=0, dtype=np.float64)
        gram[side, side] = len(inputs)
    return gram


def _seen(matrix: Any, inputs: Any, ones: bool, work: Workspace) -> Array:
    """X' A [k, n], in slices."""
    side, columns = inputs.shape[1], matrix.shape[1]
    seen = np.zeros((side + ones, columns))
    step = max(SHORTEST, ELEMENTS // columns)
    for start in range(0, len(matrix), step):
        piece = work.take("slice", len(matrix[start : start + step]), columns)
        part = work.take("inputs", len(piece), side)
        np.copyto(piece, matrix[start : start + step])
        np.copyto(part, inputs[start : start + step])
        seen[:side] += part.T @ piece
        if ones:
            seen[side] += piece.sum(axis=0)
    return seen


def _rounding(matrix: Any, inputs: Any, weight: Any, bias: Any | None) -> float:
    """Root mean square of what rounding added to an entry, on a few rows."""
    some = slice(None, None, max(1, len(matrix) // ROWS))
    product = inputs[some].astype(np.float64) @ np.asarray(weight, np.float64).T
    off = matrix[some] - (product if bias is None else product + bias)
    return float(np.sqrt(np.mean(off * off)))


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
