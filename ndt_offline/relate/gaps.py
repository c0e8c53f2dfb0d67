"""Missing samples and uneven steps: what is compared with what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndt_offline.errors import UsageError
from ndt_offline.relate.ranks import Floats

Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

# A grid of steps that lacks more than this share of its points is refused as irregular, and a
# pair that lacks more than MOST_FILLED of its samples gets no p-value.
MOST_MISSING = 0.5
MOST_FILLED = 0.1


@dataclass(frozen=True)
class Block:
    """Series and targets that lack the same samples: rows, columns and the samples they share."""

    rows: Ints
    columns: Ints
    keep: Bools


def present_groups(values: Floats) -> list[tuple[Ints, Bools]]:
    """Rows grouped by which samples are finite."""
    present = np.isfinite(values)
    if present.all():
        return (
            [(np.arange(len(values)), np.ones(values.shape[1], dtype=bool))] if len(values) else []
        )
    groups: dict[bytes, list[int]] = {}
    packed = np.packbits(present, axis=1)
    for row, key in enumerate(packed):
        groups.setdefault(key.tobytes(), []).append(row)
    return [(np.array(rows), present[rows[0]]) for rows in groups.values()]


def as_rows(values: ArrayLike, name: str) -> Floats:
    """`values` as float64 [rows, samples], one row for a vector; infinite samples become NaN."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 1 and rows.size:
        rows = rows[None]
    if rows.ndim != 2:
        raise UsageError(f"{name} must be an array [rows, samples], not of shape {rows.shape}")
    finite = np.isfinite(rows)
    return rows if finite.all() else np.where(finite, rows, np.nan)


def blocks(series: Floats, targets: Floats) -> Iterator[Block]:
    """Every (series, target) pair once, in blocks that share one set of complete samples.

    Pairwise complete: a sample counts for a pair when both values are finite.
    """
    columns = present_groups(targets)
    for rows, here in present_groups(series):
        for cols, there in columns:
            yield Block(rows, cols, here & there)


def fill(values: Floats) -> Floats:
    """Rows [k, n] with the gaps between samples bridged by straight lines; ends stay missing.

    Keeps the clock: dropping the samples would move everything after a gap.
    """
    present = np.isfinite(values)
    if present.all():
        return values
    filled, grid = values.copy(), np.arange(values.shape[1])
    for row in np.flatnonzero(~present.all(axis=1) & present.any(axis=1)):
        at = np.flatnonzero(present[row])
        inside = slice(at[0], at[-1] + 1)
        filled[row, inside] = np.interp(grid[inside], at, values[row, at])
    return filled


def filled_enough(x: Floats, y: Floats) -> Bools:
    """Whether pairs of rows [k, n], [t, n] lack at most a tenth of their common span: [k, t]."""
    both, span = _shared(x, y)
    return np.asarray((both > 0) & (both >= (1 - MOST_FILLED) * span))


def lacking(x: Floats, y: Floats) -> Bools:
    """Whether pairs of rows [k, n], [t, n] lack samples within their common span: [k, t].

    Only those are ever filled: before the first and after the last sample there is no gap.
    """
    both, span = _shared(x, y)
    return np.asarray(both < span)


def _shared(x: Floats, y: Floats) -> tuple[Floats, Ints]:
    """How many samples both of a pair have, and how long the span is that both cover: [k, t]."""
    here, there = np.isfinite(x), np.isfinite(y)
    both = here.astype(np.float64) @ there.T.astype(np.float64)
    n = x.shape[1]

    def ends(present: Bools) -> tuple[Ints, Ints]:
        return np.argmax(present, axis=1), n - 1 - np.argmax(present[:, ::-1], axis=1)

    (a, b), (c, d) = ends(here), ends(there)
    return both, np.minimum(b[:, None], d[None]) - np.maximum(a[:, None], c[None]) + 1


@dataclass(frozen=True)
class Grid:
    """A regular grid of steps: the sample at each of its points, -1 where there is none."""

    spacing: float
    source: Ints

    def place(self, values: Floats) -> Floats:
        """Rows [k, n] on the grid [k, points], NaN where no sample was taken."""
        placed = values[:, np.maximum(self.source, 0)]
        if (self.source < 0).any():
            placed[:, self.source < 0] = np.nan
        return placed


def regular_grid(steps: NDArray[np.float64] | None, n: int) -> Grid | None:
    """The grid on which lags and windows have one meaning, or None: irregular.

    The spacing is the commonest difference of steps. Samples off the grid (the dense first steps
    of a recording) are left out of the tests that need a clock; grid points without a sample are
    gaps. None when more than half of the grid would be gaps, or more than half of the samples off.
    """
    if steps is None:
        return Grid(1.0, np.arange(n))
    if n < 2:
        return Grid(1.0, np.arange(n))
    differences, counts = np.unique(np.diff(steps), return_counts=True)
    spacing = float(differences[np.argmax(counts)])
    # The grid hangs on the last step: what is off it is nearly always at the beginning.
    place = (steps[-1] - steps) / spacing
    back = np.rint(place).astype(np.intp)
    on = np.abs(place - back) < 1e-6
    points = int(back[on].max()) + 1
    if on.sum() < max(2, n / 2) or points - on.sum() > MOST_MISSING * points:
        return None
    source = np.full(points, -1, dtype=np.intp)
    source[points - 1 - back[on]] = np.flatnonzero(on)
    return Grid(spacing, source)


def checked_steps(steps: object, n: int) -> NDArray[np.float64] | None:
    """`steps` as float64 [n], or None; refuses what is no increasing clock of n samples."""
    if steps is None:
        return None
    clock = np.asarray(steps, dtype=np.float64)
    if clock.shape != (n,):
        raise UsageError(
            f"{n} samples but steps of shape {clock.shape}", remedy="give one step per sample"
        )
    if not np.isfinite(clock).all() or (np.diff(clock) <= 0).any():
        raise UsageError(
            "the steps do not increase",
            remedy="sort the samples by step and keep one sample per step",
        )
    return clock
