"""The plain association of levels: rho, what time alone gives, and what is left given time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.filters import centred_mean
from ndt_offline.relate.gaps import Bools, blocks
from ndt_offline.relate.ranks import Floats, rank_rows, share_of_ties, unit_rows

Columns = dict[str, NDArray[Any]]
Compute = Callable[[Floats, Floats, Bools], Columns]

LEVELS = ("rho", "rho_time", "rho_series_time", "partial", "ties")
SMOOTHED = ("rho", "rho_time", "partial")


def by_block(x: Floats, y: Floats, columns: Columns, least: int, compute: Compute) -> Columns:
    """`compute(rows, targets, keep)` for all pairs that share their samples, put into `columns`.

    Pairs with fewer than `least` complete samples keep what `columns` holds.
    """
    for block in blocks(x, y):
        if block.keep.sum() < least:
            continue
        at = np.ix_(block.rows, block.columns)
        for name, column in compute(x[block.rows], y[block.columns], block.keep).items():
            columns[name][at] = column
    return columns


def level_columns(x: Floats, y: Floats) -> Columns:
    """Columns [k, t] of `LEVELS` for series [k, n] and targets [t, n], pairwise complete."""
    empty = {name: np.full((len(x), len(y)), np.nan) for name in LEVELS}
    return by_block(x, y, empty, 3, lambda a, b, keep: _level_block(_cut(a, keep), _cut(b, keep)))


def smoothed_columns(x: Floats, y: Floats, smooth: int) -> Columns:
    """`rho_smooth`, `rho_time_smooth`, `partial_smooth` after a centred mean of `smooth` samples.

    Smoothing takes away what is not common trend and so drives every rho towards -1 or 1, that of
    time itself included: these numbers are read beside the plain ones, and no p goes with them.
    """

    def soft(values: Floats) -> Floats:
        return np.where(np.isnan(values), np.nan, centred_mean(values, smooth))

    levels = level_columns(soft(x), soft(y))
    return {f"{name}_smooth": levels[name] for name in SMOOTHED}


def partial_rho(rho: Floats, own: Floats, time: Floats) -> Floats:
    """Rank correlation given time: (r - r_x r_y) / sqrt((1 - r_x^2)(1 - r_y^2)).

    r_x, r_y are the rho of series and of target with time. It removes what is linear in the rank
    of time, no more: a shared bend stays. NaN where either is time itself.
    """
    rest = (1 - own**2) * (1 - time**2)
    free = rest > 1e-12
    root = np.sqrt(np.where(free, rest, 1.0))
    return np.where(free, np.clip((rho - own * time) / root, -1, 1), np.nan)


def _cut(values: Floats, keep: Bools) -> Floats:
    return values if keep.all() else values[:, keep]


def _level_block(a: Floats, b: Floats) -> Columns:
    ranks_a, ranks_b = rank_rows(a), rank_rows(b)
    ra, rb = unit_rows(ranks_a), unit_rows(ranks_b)
    clock = unit_rows(np.arange(a.shape[1], dtype=np.float64)[None])[0]
    shape = (len(a), len(b))
    rho = np.clip(ra @ rb.T, -1, 1)
    own = np.broadcast_to(np.clip(ra @ clock, -1, 1)[:, None], shape)
    time = np.broadcast_to(np.clip(rb @ clock, -1, 1)[None, :], shape)
    ties = np.maximum(share_of_ties(ranks_a)[:, None], share_of_ties(ranks_b)[None, :])
    partial = partial_rho(rho, own, time)
    return dict(zip(LEVELS, (rho, time, own, partial, ties), strict=True))
