"""Similarity of two representations of the same samples: linear CKA.

    CKA(X, Y) = |Y' X|_F^2 / (|X' X|_F |Y' Y|_F) = <K, L> / (|K| |L|),  K = X X', L = Y Y'

with the columns of X [n, p] and Y [n, q] centred. In [0, 1]; 1 for the same representation up to
rotation and one common scale; unchanged by rotations and scale of either side, but not by scaling
single features. Rows must be the same samples in the same order. Kornblith, Norouzi, Lee and
Hinton, ICML 2019, eq. 5 and 6 (the biased HSIC estimate). With few samples against many features
the value of unrelated representations is well above 0, near p / (n + p) for white noise: compare
values of one layer and one probe, not of different sizes. It is a property of the probe, not of
the training data.

`hold` keeps a representation centred and normalised, so that each later comparison is one matrix
product or one inner product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError

Array: TypeAlias = npt.NDArray[np.float64]

# Variance below this share of the mean square is what rounding leaves of a constant column.
_CONSTANT = 1e-24
# A read element of a sample Gram matrix costs about as much as this many multiply-adds of BLAS.
_READ = 8


@dataclass(frozen=True)
class Representation:
    """A centred layer matrix, divided so that |X' X|_F = 1, in one of two forms.

    features: `values` [n, p] is X. samples: `values` [n (n + 1) / 2] is one triangle of X X' with
    its `diagonal` [n] in it, and [n] once more beside it. Activations that are constant over the
    samples, or not finite, have no similarity: `constant`.
    """

    form: str
    samples: int
    values: Array
    diagonal: Array
    constant: bool = False

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.diagonal.nbytes


def linear_cka(x: Any, y: Any) -> float:
    """Linear CKA of x [n, p] and y [n, q], by whichever of the two forms is cheaper.

    NaN where one is constant over the samples, or holds NaN or infinite values.
    """
    x, y = np.asarray(x), np.asarray(y)
    _check(x, y)
    n, p, q = len(x), x.shape[1], y.shape[1]
    features = p * q + (p * p + q * q) / 2
    form = "features" if features <= n * (p + q) / 2 else "samples"
    return similarity(hold(x, form), hold(y, form))


def cheaper_form(n: int, p: int, comparisons: int = 3) -> str:
    """The form in which holding [n, p] and comparing with others of its shape costs less.

    features: n p^2 / 2 once and n p^2 for each comparison; samples: n^2 p / 2 once, and n^2 / 2
    elements read for each. It depends on the shape only, so that all steps of a layer agree.
    """
    features = n * p * p * (0.5 + comparisons)
    samples = n * n * p * 0.5 + (1 + comparisons) * _READ * n * n / 2
    return "features" if features <= samples else "samples"


def hold(x: Any, form: str | None = None) -> Representation:
    """A layer matrix [n, p] ready to be compared; float64 whatever it was.

    form: features, samples, or None for `cheaper_form`. Memory 8 n p bytes or 4 n^2.
    """
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise UsageError(f"expected a matrix of samples and features, got shape {x.shape}")
    form = form or cheaper_form(*x.shape)
    if form not in ("features", "samples"):
        raise UsageError(f"form {form!r} is not known", remedy="features or samples")
    with np.errstate(over="ignore", invalid="ignore"):
        centred, constant = _centred(_rescaled(x) if x.dtype == np.float64 else x)
        total = float(centred.ravel().dot(centred.ravel()))
    if constant or not np.isfinite(total):
        return Representation(form, len(x), np.full(1, np.nan), np.full(1, np.nan), True)
    return _samples(centred) if form == "samples" else _features(centred)


def similarity(first: Representation, second: Representation) -> float:
    """Linear CKA of two held representations: one inner product, or one matrix product."""
    if first.samples != second.samples:
        raise UsageError(f"{first.samples} and {second.samples} samples cannot be compared")
    if first.form != second.form:
        raise UsageError("representations of two forms cannot be compared", remedy="name the form")
    if first.constant or second.constant:
        return float("nan")
    if first.form == "samples":
        # Both triangles, and the diagonal, which is in each of them, once.
        shared = float(first.diagonal.dot(second.diagonal))
        return _bounded(2 * float(first.values.dot(second.values)) - shared)
    cross = first.values.T @ second.values
    return _bounded(float(np.vdot(cross, cross)))


def similarity_matrix(layers: list[Any]) -> Array:
    """Linear CKA [k, k] between k layer matrices of the same n samples; widths may differ."""
    widths = [np.asarray(layer).shape[1] for layer in layers]
    n = len(layers[0]) if layers else 0
    form = cheaper_form(n, max(1, sum(widths) // max(len(widths), 1)), len(layers))
    held = [hold(layer, form) for layer in layers]
    return similarities(held, held)


def similarities(first: Sequence[Representation], second: Sequence[Representation]) -> Array:
    """Linear CKA [k, m] of every two; NaN where they hold other numbers of samples."""
    found = np.full((len(first), len(second)), np.nan)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            if first is second and j < i:
                found[i, j] = found[j, i]
            elif one.samples == other.samples:
                found[i, j] = similarity(one, other)
    return found


def _centred(x: Any) -> tuple[Array, bool]:
    """x in float64 minus its column means, and whether nothing but rounding is left."""
    wide = x.astype(np.float64, order="C")
    mean = wide.mean(0)
    wide -= mean
    spread = wide.ravel().dot(wide.ravel())
    return wide, bool(spread <= _CONSTANT * len(wide) * mean.dot(mean))


def _rescaled(x: Any) -> Any:
    """x times a power of two, which is exact, so that its fourth powers are ordinary numbers."""
    top = float(np.abs(x).max())
    ordinary = not np.isfinite(top) or top == 0 or 1e-60 < top < 1e60
    return x if ordinary else x.astype(np.float64) * 2.0 ** -np.floor(np.log2(top))


def _samples(x: Array) -> Representation:
    """One triangle of X X', packed as LAPACK's dsfrk writes it: no square is ever filled."""
    from scipy.linalg import lapack

    n, p = x.shape
    empty = np.empty(n * (n + 1) // 2)
    # The C-ordered X [n, p] is X' for LAPACK.
    values = lapack.dsfrk(n, p, 1.0, x.T, 0.0, empty, trans="T", uplo="L", overwrite_c=1)
    diagonal = np.einsum("ij,ij->i", x, x)
    size = np.sqrt(2 * values.dot(values) - diagonal.dot(diagonal))
    values /= size
    return Representation("samples", n, values, diagonal / size)


def _features(x: Array) -> Representation:
    from scipy.linalg import blas

    gram = blas.dsyrk(1.0, x.T, lower=1)  # one triangle of X' X; the other stays zero
    diagonal = gram.diagonal()
    size = np.sqrt(2 * np.vdot(gram, gram) - diagonal.dot(diagonal))
    x /= np.sqrt(size)
    return Representation("features", len(x), x, np.zeros(0))


def _bounded(value: float) -> float:
    """Rounding must not give more than 1."""
    return min(max(value, 0.0), 1.0)


def _check(x: Any, y: Any) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise UsageError(f"matrices {x.shape} and {y.shape} do not hold the same samples")
