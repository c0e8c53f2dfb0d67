"""The largest eigenvalue of a symmetric operator known by its products only: Lanczos' method.

Full reorthogonalisation. With s the last entry of the leading Ritz vector and b the last
off-diagonal entry of the tridiagonal matrix, |H v - l v| = |b s|, and an eigenvalue lies within
min(|b s|, |b s|^2 / gap) of l, with the gap to the second. Lanczos (1950); Parlett, The Symmetric
Eigenvalue Problem, chapters 11 and 13. It cannot find what its start vector has no part in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ndt_offline.errors import UsageError

TOLERANCE = 1e-4  # of the eigenvalue
ITERATIONS = 60
MEMORY = 512 << 20  # bytes of Lanczos vectors; when they are full, it starts again from the best
# What a later start is made of beside the leading eigenvector: the two that follow it, since
# eigenvalues cross.
_NEXT = (0.2, 0.1)

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Leading:
    """Of a symmetric operator: its largest eigenvalue, unit eigenvector, and how sure they are.

    residual: |H v - value v| / |value|. iterations: products taken. converged: the estimated error
    of the value is within the tolerance. gap: to the second, as far as it is known, else 0.
    start: the vector with some of the two that follow it, to start from at a near operator.
    """

    value: float
    vector: Tensor
    iterations: int
    residual: float
    converged: bool
    start: Tensor
    gap: float


def leading_eigenvalue(
    product: Product,
    start: Tensor,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    memory: int = MEMORY,
    gap: float = math.inf,
) -> Leading:
    """Largest eigenvalue of a symmetric operator from products with vectors like `start`.

    Stops when its estimated error is within `tolerance` of it, or after `iterations` products.
    gap: that of a near operator: the first few Ritz values make it look wider than it is.
    """
    if iterations < 1 or not tolerance > 0:
        raise UsageError(f"iterations={iterations}, tolerance={tolerance}: expected more than 0")
    length = float(start.norm())
    if not length > 0 or not math.isfinite(length):
        raise UsageError("the start vector has no direction")
    held = max(4, min(iterations, memory // max(start.nbytes, 1)))
    best, used = unknown(start / length, 0), 0
    while used < iterations:
        most = min(held, iterations - used)
        best = _lanczos(product, best.vector, tolerance, most, gap)
        used += best.iterations
        if best.converged or not math.isfinite(best.value):
            break
    return replace(best, iterations=used)


def _lanczos(product: Product, start: Tensor, tolerance: float, most: int, gap: float) -> Leading:
    basis = torch.empty(most, len(start), dtype=start.dtype, device=start.device)
    diagonal: list[float] = []
    beside: list[float] = []
    basis[0] = start
    for step in range(most):
        image = product(basis[step])
        diagonal.append(float(image @ basis[step]))
        if not math.isfinite(diagonal[-1]):
            return unknown(start, step + 1)
        # What the recurrence says, then what rounding brought back of all the vectors before.
        image -= diagonal[-1] * basis[step]
        if step:
            image -= beside[-1] * basis[step - 1]
        image -= (basis[: step + 1] @ image) @ basis[: step + 1]
        beside.append(float(image.norm()))
        values, ritz = _ritz(diagonal, beside)
        residual, error = _error(values, ritz, beside[-1], gap)
        done = error <= tolerance * abs(values[0]) or beside[-1] == 0
        if done or step == most - 1:
            break
        basis[step + 1] = image / beside[-1]
    vectors = torch.from_numpy(ritz[:, :3].T.copy()).to(basis) @ basis[: len(diagonal)]
    return Leading(
        value=float(values[0]),
        vector=vectors[0] / vectors[0].norm(),
        iterations=len(diagonal),
        residual=residual / abs(values[0]) if values[0] != 0 else 0.0,
        converged=bool(done),
        start=vectors[0] + sum(c * v for c, v in zip(_NEXT, vectors[1:], strict=False)),
        gap=float(values[0] - values[1]) if len(values) > 1 else 0.0,
    )


def unknown(vector: Tensor, iterations: int) -> Leading:
    return Leading(math.nan, vector, iterations, math.nan, False, vector, 0.0)


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the tridiagonal matrix, descending, and eigenvectors in columns."""
    small = np.diag(diagonal)
    if len(diagonal) > 1:
        small += np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(small)
    return values[::-1], vectors[:, ::-1]


def _error(values: np.ndarray, ritz: np.ndarray, last: float, gap: float) -> tuple[float, float]:
    """Residual of the leading Ritz pair, and the estimated error of its value."""
    residual = abs(last * float(ritz[-1, 0]))
    gap = min(gap, float(values[0] - values[1])) if len(values) > 1 else 0.0
    return residual, min(residual, residual**2 / gap) if gap > 0 else residual
