"""Motion: how far a weight moved since the last recorded step and since the start.

w_t is a weight at recorded step t, `before` the same weight at the recorded step before, `before2`
at the one before that. With checkpoints every 5 updates the difference is the sum of 5 updates; it
is a property of the trajectory, not of one batch's gradient. Arrays of any shape and floating type
are compared element by element; differences and sums are float64, in pieces that stay in the
cache. A value that is not defined (0 / 0, x / 0) is NaN; NaN or infinite weights give NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]

_PIECE = 1 << 15  # elements: smaller pieces cost more calls, larger ones leave the cache


@dataclass(frozen=True)
class Motion:
    """The movement of one weight at one recorded step; NaN where a state was not given."""

    update_norm: float
    relative_update: float
    distance: float
    update_cosine: float


def update_norm(w: Array, before: Array) -> float:
    """|w_t - w_(t-1)|, the Euclidean (Frobenius) norm of the update, in the weight's units."""
    return motion(w, before).update_norm


def relative_update(w: Array, before: Array) -> float:
    """|w_t - w_(t-1)| / |w_(t-1)|, without unit; NaN where the weight was zero before.

    The ratio that You, Gitman and Ginsburg (2017, arXiv:1708.03888) watch per layer.
    """
    return motion(w, before).relative_update


def distance(w: Array, start: Array) -> float:
    """|w_t - w_0|: how far from the initial state. Not the length of the path walked."""
    return motion(w, start).update_norm


def update_cosine(w: Array, before: Array, before2: Array) -> float:
    """Cosine of (w_t - w_(t-1)) with (w_(t-1) - w_(t-2)), in [-1, 1]; NaN where one is zero.

    Near 1 the weight keeps its direction, near 0 it diffuses, below 0 it bounces.
    """
    return motion(w, before, before2).update_cosine


def effective_rate(update: Array | float, gradient: Array | float, updates: int = 1) -> float:
    """|update| / (updates |g|): the length of an average update per unit of probe gradient.

    `update` and `gradient` are arrays or their norms; `updates` is the number of optimiser updates
    between the two recorded steps. For plain gradient descent on the probe it is the learning
    rate, but for what the gradient changed meanwhile (about the learning rate times the curvature,
    per update, where it is the gradient after them); with momentum, adaptive scaling or other
    batches it is what these make of it. NaN where the gradient is zero.
    """
    if updates < 1:
        raise UsageError(f"updates={updates}: expected a positive number")
    size, slope = _norm(update), _norm(gradient)
    return size / (updates * slope) if slope > 0 and math.isfinite(size) else math.nan


def motion(
    w: Array, before: Array, before2: Array | None = None, start: Array | None = None
) -> Motion:
    """All of the above in one pass over the weights."""
    arrays = [np.asarray(a) for a in (w, before, before2, start) if a is not None]
    for array in arrays[1:]:
        if array.shape != arrays[0].shape:
            raise UsageError(f"shapes {arrays[0].shape} and {array.shape} cannot be compared")
    flat = [a.reshape(-1) for a in arrays]
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _sums(flat, before2 is not None, start is not None)
    # An infinite weight makes inf - inf or inf; neither is a length.
    update, held, last, turn, away = (s if math.isfinite(s) else math.nan for s in sums)
    return Motion(
        update_norm=math.sqrt(update),
        relative_update=_ratio(math.sqrt(update), math.sqrt(held)),
        distance=math.sqrt(away) if start is not None else math.nan,
        update_cosine=_cosine(turn, update, last) if before2 is not None else math.nan,
    )


def _sums(flat: list[Array], second: bool, first: bool) -> tuple[float, ...]:
    """Sums of u.u, before.before, u2.u2, u.u2, d.d with u = w - before and d = w - start."""
    size = flat[0].size
    uu = bb = ll = ul = dd = 0.0
    # The difference goes where its operand was: memory traffic decides the time.
    held = np.empty((3, min(_PIECE, size)))
    for begin in range(0, size, _PIECE):
        end = min(begin + _PIECE, size)
        work = held[:, : end - begin]
        w, before, other = work
        w[...], before[...] = flat[0][begin:end], flat[1][begin:end]
        bb += float(before.dot(before))
        if first:
            other[...] = flat[-1][begin:end]
            away = np.subtract(w, other, other)
            dd += float(away.dot(away))
        update = np.subtract(w, before, w)
        uu += float(update.dot(update))
        if second:
            other[...] = flat[2][begin:end]
            last = np.subtract(before, other, other)
            ll += float(last.dot(last))
            ul += float(update.dot(last))
    return uu, bb, ll, ul, dd


def _norm(value: Array | float) -> float:
    return float(np.linalg.norm(np.asarray(value, np.float64).reshape(-1)))


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else math.nan


def _cosine(turn: float, first: float, second: float) -> float:
    # Two roots, not the root of a product, which can underflow.
    size = math.sqrt(first) * math.sqrt(second)
    return min(max(turn / size, -1.0), 1.0) if size > 0 else math.nan
