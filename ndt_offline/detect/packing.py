"""Step filters of several widths laid end to end, so that one product fits them all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ndt_offline.detect.filters import CUBIC, HALVES
from ndt_offline.detect.transition import Array, Points


@dataclass(frozen=True)
class Packing:
    """Filters with c columns each: f of them, their windows laid end to end, m points in all.

    rows: which filters. points [m]: place in the widest window. starts [f]: first point of each.
    columns: c. mine [fc, m]: whether column and point are of one filter. left, right [q]: pairs of
    columns of one filter. own [fc]: number of the pair of each column with itself. place
    [2, f, c, c]: pair at each place of the normal equations with the step (first) and without;
    q stands for 0, q + 1 for 1.
    """

    rows: slice
    points: Points
    starts: Points
    columns: int
    mine: Array
    left: Points
    right: Points
    own: Points
    place: Points


@cache
def packings(w: int) -> tuple[Packing, ...]:
    """The first w filters, those with a line as nuisance and those with a cubic apart."""
    narrow = sum(h < CUBIC for h in HALVES[:w])
    return tuple(_pack(a, b, c) for a, b, c in ((0, narrow, 3), (narrow, w, 5)) if b > a)


def _pack(a: int, b: int, columns: int) -> Packing:
    widths = 2 * np.array(HALVES[a:b])
    points = np.concatenate([np.arange(n) - n // 2 + HALVES[-1] for n in widths])
    owner = np.repeat(np.arange(b - a), widths)
    of = np.repeat(np.arange(b - a), columns)
    left, right = np.nonzero(np.triu(np.equal.outer(of, of)))
    pair = np.zeros((len(of), len(of)), np.int64)
    pair[left, right] = pair[right, left] = np.arange(len(left))
    corner = np.arange(b - a)[:, None, None] * columns + np.arange(columns)
    place = np.stack([pair[corner.swapaxes(1, 2), corner]] * 2)
    place[1, :, 0], place[1, :, :, 0], place[1, :, 0, 0] = len(left), len(left), len(left) + 1
    return Packing(
        rows=slice(a, b),
        points=points,
        starts=np.cumsum(widths) - widths,
        columns=columns,
        mine=(of[:, None] == owner).astype(np.float64),
        left=left,
        right=right,
        own=np.diagonal(pair),
        place=place,
    )
