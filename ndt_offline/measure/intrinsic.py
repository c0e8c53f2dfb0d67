"""Intrinsic dimension of a cloud of points from the distances to nearest neighbours.

Points are the rows of a layer's matrix: the samples of the probe. Both estimators assume that the
density hardly changes within a neighbourhood and that no edge is near, which more dimensions make
harder: both give too little from about 10 on, whatever else is right. On uniform balls, uniform
spheres and Gaussians of known dimension d, with 2000 points, the mean over draws is within 10 % for

    TwoNN   d <= 10 (ball: 8); .89 d at 15 (ball .86), .78 to .83 d at 20
    MLE     d <= 8 (ball: 5);  .79 to .83 d at 15,     .74 to .78 d at 20

and with 512 points TwoNN to d = 10 (ball: 8), MLE to 5 (ball: 3); there one draw of TwoNN scatters
by another 5 %. So compare steps of one run, with one probe. The number is a property of that probe,
not of the training data, and it is not the rank: a curved line in 100 dimensions has dimension 1.

With few points the spread over samples is large, so fewer than 300 are refused.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import RefusedError, UsageError

Array: TypeAlias = npt.NDArray[np.float64]

LEAST = 300  # rows
MEMORY = 64 << 20  # bytes of a block of the distance matrix
# Found by products of vectors, and measured again by differences: more than are asked for, since
# rounding may change the order of neighbours that are equally far.
_SPARE = 4


def two_nn(points: Any, discard: float = 0.1, distances: Array | None = None) -> float:
    """TwoNN: the slope of -log(1 - F) against log(r2 / r1), by a straight line through 0.

    points [n, p]; r1 and r2 are the distances to the two nearest others. The n ratios in ascending
    order have the empirical distribution F_i = i / n; the largest share `discard` of them is left
    out of the fit, not of n; least squares without intercept: d = sum x y / sum x^2. Facco,
    d'Errico, Rodriguez and Laio, Sci. Rep. 7 (2017) 12140, as in their text.

    A point with a duplicate has no ratio and is dropped from n; NaN where fewer
    than two are left, or values are not finite. RefusedError under 300 points. `distances`, from
    `neighbour_distances` with two or more, saves their search.
    """
    if not 0 <= discard < 1:
        raise UsageError(f"discard={discard}: expected a share of at least 0 and under 1")
    r = _distances(points, 2, distances)
    r = r[np.isfinite(r[:, 1]) & (r[:, 0] > 0)]
    kept = int(len(r) * (1 - discard))
    # The last of all has F = 1 and no finite logarithm.
    kept = min(kept, len(r) - 1)
    if kept < 2:
        return float("nan")
    x = np.log(np.sort(r[:, 1] / r[:, 0])[:kept])
    y = -np.log1p(-np.arange(1, kept + 1) / len(r))
    square = float(x.dot(x))
    return float(x.dot(y)) / square if square > 0 else float("nan")


def mle_dimension(points: Any, neighbours: int = 20, distances: Array | None = None) -> float:
    """Maximum likelihood: 1 / d = mean over points of (1 / (k - 1)) sum_(j < k) log(r_k / r_j).

    points [n, p]; r_j is the distance to the j-th nearest other, k = `neighbours`. Levina and
    Bickel, NIPS 2004; the inverses are averaged, not the estimates, as MacKay and Ghahramani (note,
    2005) correct it: each term has the mean 1 / d.

    Points with a duplicate are dropped; NaN where none is left, or values are not finite.
    RefusedError under 300 points. `distances` from `neighbour_distances` saves their search.
    """
    if neighbours < 3:
        raise UsageError(f"neighbours={neighbours}: expected 3 or more")
    r = _distances(points, neighbours, distances)
    r = r[np.isfinite(r[:, -1]) & (r[:, 0] > 0)]
    if len(r) == 0:
        return float("nan")
    inverse = (np.log(r[:, -1:]) - np.log(r[:, :-1])).mean(1)
    mean = float(inverse.mean())
    return 1 / mean if mean > 0 else float("nan")


def neighbour_distances(points: Any, neighbours: int = 20, memory: int = MEMORY) -> Array:
    """Distances [n, k] of every point to its k nearest others, ascending, exact, float64.

    Candidates come from blocks of the distance matrix, |x|^2 + |y|^2 - 2 x y of centred points, of
    at most `memory` bytes in all; their distances are then those of the differences, so that near
    duplicates are not lost in rounding. NaN throughout where a value is not finite. RefusedError
    under 300 points.
    """
    x = np.asarray(points)
    check_rows(x)
    n = len(x)
    if not 1 <= neighbours < n:
        raise UsageError(f"{neighbours} neighbours of {n} points: expected 1 to {n - 1}")
    wide = x.astype(np.float64)
    if not np.isfinite(wide.sum()):
        return np.full((n, neighbours), np.nan)
    wide -= wide.mean(0)
    top = float(np.abs(wide).max())
    power = 2.0 ** np.floor(np.log2(top)) if top > 0 else 1.0
    wide /= power
    found = np.empty((n, neighbours))
    step = _block(n, wide.shape[1], neighbours, memory)
    squares = np.einsum("ij,ij->i", wide, wide)
    for begin in range(0, n, step):
        found[begin : begin + step] = _nearest(wide, squares, begin, step, neighbours)
    return found * power


def check_rows(points: Any) -> None:
    """RefusedError where a matrix has too few rows for an intrinsic dimension."""
    shape = np.shape(points)
    if len(shape) != 2 or 0 in shape:
        raise UsageError(f"expected a matrix of points, got shape {shape}")
    if shape[0] < LEAST:
        raise RefusedError(
            f"{shape[0]} rows are too few for an intrinsic dimension, which needs {LEAST}",
            remedy=f"a probe of {LEAST} samples or more",
        )


def _distances(points: Any, neighbours: int, distances: Array | None) -> Array:
    if distances is None:
        return neighbour_distances(points, neighbours)
    check_rows(distances)
    if distances.shape[1] < neighbours:
        raise UsageError(f"distances to {distances.shape[1]} neighbours; {neighbours} are needed")
    return distances[:, :neighbours]


def _block(n: int, p: int, neighbours: int, memory: int) -> int:
    """Rows of a block: two rows of distances and order, and the candidates' differences."""
    row = 8 * (2 * n + (neighbours + _SPARE) * (p + 2))
    return max(1, min(n, memory // row))


def _nearest(x: Array, squares: Array, begin: int, step: int, neighbours: int) -> Array:
    part = x[begin : begin + step]
    # |x|^2 of the row itself changes no order.
    order = part @ x.T
    order *= -2.0
    order += squares
    rows = np.arange(len(part))
    order[rows, begin + rows] = np.inf
    count = min(neighbours + _SPARE, len(x) - 1)
    near = np.argpartition(order, count - 1, axis=1)[:, :count]
    difference = x[near] - part[:, None, :]
    exact = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    exact.sort(1)
    return exact[:, :neighbours]
