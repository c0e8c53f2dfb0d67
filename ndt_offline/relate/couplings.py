"""Couplings of many series with a few targets: what goes with what beyond the common clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ndt_offline.errors import UsageError
from ndt_offline.relate.gaps import blocks, checked_steps
from ndt_offline.relate.ranks import Floats, share_of_ties, unit_ranks

# 0 is what a store holds before anything was computed.
STATUS = (
    "not computed",
    "ok",
    "gaps filled",
    "many ties",
    "constant series",
    "constant target",
    "too short",
    "too many gaps",
    "irregular steps",
)
CODE = {name: code for code, name in enumerate(STATUS)}
MOST_TIED = 0.5


@dataclass(frozen=True)
class Coupling:
    """One series against one target. Numbers that could not be computed are NaN; `status` says why."""

    series: int
    target: int
    n: int
    status: str
    rho: float
    rho_time: float
    rho_series_time: float
    partial: float
    ties: float
    p: float = np.nan


def couplings_table(
    series: ArrayLike, targets: ArrayLike, steps: ArrayLike | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """`correlate` as columns: {field of Coupling: array [k, t]}; `status` is a uint8 code."""
    x, y = _matrix(series, "series"), _matrix(targets, "targets")
    if x.shape[1] != y.shape[1]:
        raise UsageError(f"series have {x.shape[1]} samples, targets {y.shape[1]}")
    checked_steps(steps, x.shape[1])
    return _levels(x, y)


def correlate(
    series: ArrayLike, targets: ArrayLike, steps: ArrayLike | None = None
) -> list[Coupling]:
    """Every series [k, n] against every target [t, n]: k*t records, series-major."""
    table = couplings_table(series, targets, steps)
    k, t = table["rho"].shape
    return [
        Coupling(
            series=i,
            target=j,
            n=int(table["n"][i, j]),
            status=STATUS[table["status"][i, j]],
            **{
                name: float(column[i, j])
                for name, column in table.items()
                if name not in ("n", "status")
            },
        )
        for i in range(k)
        for j in range(t)
    ]


def _matrix(values: ArrayLike, name: str) -> Floats:
    matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if matrix.ndim != 2:
        raise UsageError(f"{name} must be [rows, samples], not {matrix.shape}")
    return np.where(np.isfinite(matrix), matrix, np.nan)


def _levels(x: Floats, y: Floats) -> dict[str, np.ndarray[Any, Any]]:
    shape = (len(x), len(y))
    names = ("rho", "rho_time", "rho_series_time", "partial", "ties")
    table: dict[str, np.ndarray[Any, Any]] = {name: np.full(shape, np.nan) for name in names}
    table["n"] = np.zeros(shape, dtype=np.int64)
    table["status"] = np.full(shape, CODE["too short"], dtype=np.uint8)
    for block in blocks(x, y):
        n = int(block.keep.sum())
        at = np.ix_(block.rows, block.columns)
        table["n"][at] = n
        if n < 3:
            continue
        a, b = x[block.rows][:, block.keep], y[block.columns][:, block.keep]
        for name, column in _level_block(a, b).items():
            table[name][at] = column
    return table


def _level_block(a: Floats, b: Floats) -> dict[str, np.ndarray[Any, Any]]:
    ra, rb = unit_ranks(a), unit_ranks(b)
    clock = unit_ranks(np.arange(a.shape[1], dtype=np.float64)[None])[0]
    shape = (len(a), len(b))
    rho = np.clip(ra @ rb.T, -1, 1)
    own = np.broadcast_to((ra @ clock)[:, None], shape)
    time = np.broadcast_to((rb @ clock)[None, :], shape)
    ties = np.maximum(share_of_ties(a)[:, None], share_of_ties(b)[None, :])
    status = np.full(shape, CODE["ok"], dtype=np.uint8)
    status[ties > MOST_TIED] = CODE["many ties"]
    status[:, np.isnan(rb[:, 0])] = CODE["constant target"]
    status[np.isnan(ra[:, 0])] = CODE["constant series"]
    return {
        "rho": rho,
        "rho_time": time,
        "rho_series_time": own,
        "partial": partial_rho(rho, own, time),
        "ties": ties,
        "status": status,
    }


def partial_rho(rho: Floats, own: Floats, time: Floats) -> Floats:
    """Rank correlation given time: (r - r_x r_y) / sqrt((1 - r_x^2)(1 - r_y^2)).

    r_x, r_y are the rho of series and of target with time. It removes what is linear in the rank
    of time, no more: a shared bend stays. NaN where either is time itself.
    """
    rest = (1 - own**2) * (1 - time**2)
    free = rest > 1e-12
    root = np.sqrt(np.where(free, rest, 1.0))
    return np.where(free, np.clip((rho - own * time) / root, -1, 1), np.nan)
