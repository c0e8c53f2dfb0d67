"""Couplings of many series with a few targets: what goes with what beyond the common clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndt_offline.errors import UsageError
from ndt_offline.relate.beyond import BEYOND, SHORTEST, beyond_columns
from ndt_offline.relate.combine import benjamini_hochberg
from ndt_offline.relate.gaps import Bools, Grid, as_rows, checked_steps, lacking, regular_grid
from ndt_offline.relate.levels import SMOOTHED, Columns, level_columns, smoothed_columns
from ndt_offline.relate.ranks import Floats
from ndt_offline.relate.serial import interval_of_rho

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
    "no fluctuations",
)
CODE = {name: code for code, name in enumerate(STATUS)}
MOST_TIED = 0.5
ALPHA = 0.05


@dataclass(frozen=True)
class Coupling:
    """One series against one target. A number that could not be computed is NaN; `status` says why.

    rho, low, high        Spearman's rho of the levels and its interval (95 %, by effective n)
    rho_time              rho of training time itself with the target: read rho beside it
    rho_series_time       rho of training time with the series
    partial               rho of series and target given time
    p                     the p: Simes of p_shift, p_detrended, p_differenced, p_lag
    q                     Benjamini-Hochberg over all pairs of the call
    p_shift               truncated time shift; never below 1/41
    rho_detrended, p_...  minus the centred mean of 51, divided by the rolling volatility, the
                          target without its rhythm (what recurs every epoch)
    rho_differenced, ...  first differences, likewise minus their mean and divided
    lag, lag_low, _high   in steps, > 0: the series leads; of the detrended pair
    rho_lag, p_lag        at that lag; p for the best of all lags within 50 samples
    n, n_effective, ties  complete samples, what they are worth, share of tied samples
    rho_smooth, ...       after `smooth`, where asked for; beside, never instead of, rho
    """

    series: int
    target: int
    status: str
    n: int
    rho: float
    low: float
    high: float
    rho_time: float
    rho_series_time: float
    partial: float
    p: float
    q: float
    p_shift: float
    rho_detrended: float
    p_detrended: float
    rho_differenced: float
    p_differenced: float
    lag: float
    lag_low: float
    lag_high: float
    rho_lag: float
    p_lag: float
    n_effective: float
    ties: float
    rho_smooth: float
    rho_time_smooth: float
    partial_smooth: float

    @property
    def coupled(self) -> bool:
        """Whether the pair is coupled beyond the common clock: q <= .05."""
        return self.q <= ALPHA


def correlate(
    series: ArrayLike,
    targets: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    smooth: int | None = None,
    level: float = 0.95,
) -> list[Coupling]:
    """Every series [k, n] against every target [t, n]: k*t records, series-major.

    steps    the training step of each sample [n], increasing; default 0..n-1. Uneven steps are
             brought onto their commonest spacing for the tests that need a clock; where that
             fails the status is "irregular steps" and p is NaN
    smooth   also give rho after a centred mean of this many samples of both
    level    of the confidence interval of rho

    NaN and infinite samples are missing; a pair is compared on the samples both have. Raises
    UsageError for shapes that do not fit and steps that do not increase. A small p says that two
    series fluctuate together beyond their trends; it does not say that one drives the other. An
    epoch's rhythm in both is taken out of the target (p <= .05 in .02 to .10 of such pairs), but a
    dip of two samples an epoch, three times the noise, is not: .24 of independent pairs.
    """
    return coupling_records(couplings_table(series, targets, steps, smooth=smooth, level=level))


def coupling_records(table: Columns) -> list[Coupling]:
    """The rows of a `couplings_table`, series-major."""
    k, t = table["rho"].shape
    rows = {name: column.ravel().tolist() for name, column in table.items()}
    rows["status"] = [STATUS[code] for code in rows["status"]]
    return [
        Coupling(i // t, i % t, **{name: row[i] for name, row in rows.items()})
        for i in range(k * t)
    ]


def couplings_table(
    series: ArrayLike,
    targets: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    smooth: int | None = None,
    level: float = 0.95,
) -> Columns:
    """`correlate` as columns: {field of `Coupling`: array [k, t]}; `status` is a uint8 code."""
    x, y = as_rows(series, "series"), as_rows(targets, "targets")
    if x.shape[1] != y.shape[1]:
        raise UsageError(
            f"the series have {x.shape[1]} samples, the targets {y.shape[1]}",
            remedy="give series and targets of the same steps",
        )
    if smooth is not None and smooth < 1:
        raise UsageError(f"smooth={smooth} is no number of samples")
    clock = checked_steps(steps, x.shape[1])
    table = level_columns(x, y)
    table["n"] = np.isfinite(x).astype(np.int64) @ np.isfinite(y).astype(np.int64).T
    grid = regular_grid(clock, x.shape[1])
    even = grid is None or len(grid.source) == x.shape[1]
    clocked = (x, y) if grid is None or even else (grid.place(x), grid.place(y))
    table |= _beyond(*clocked, grid)
    table["status"] = _status(table, lacking(*clocked), grid)
    table["low"], table["high"] = interval_of_rho(table["rho"], table["n_effective"], level)
    table["q"] = benjamini_hochberg(table["p"])
    empty = np.full(table["rho"].shape, np.nan)
    table |= (
        smoothed_columns(x, y, smooth) if smooth else {f"{name}_smooth": empty for name in SMOOTHED}
    )
    return table


def _beyond(x: Floats, y: Floats, grid: Grid | None) -> Columns:
    if grid is None:
        return {name: np.full((len(x), len(y)), np.nan) for name in BEYOND}
    columns = beyond_columns(x, y)
    for name in ("lag", "lag_low", "lag_high"):
        columns[name] = columns[name] * grid.spacing
    return columns


def _status(table: Columns, gaps: Bools, grid: Grid | None) -> NDArray[np.uint8]:
    n, rho = table["n"], table["rho"]
    status = np.full(rho.shape, CODE["ok"], dtype=np.uint8)
    status[gaps] = CODE["gaps filled"]
    # Ties limit the pair more than a few samples on straight lines do.
    status[table["ties"] > MOST_TIED] = CODE["many ties"]
    status[np.isnan(table["p"])] = CODE["no fluctuations"]
    status[np.isnan(table["n_effective"])] = CODE["too many gaps"]
    if grid is None:
        status[:] = CODE["irregular steps"]
    status[n < SHORTEST] = CODE["too short"]
    status[np.isnan(rho) & np.isnan(table["rho_time"]) & (n >= 3)] = CODE["constant target"]
    status[np.isnan(rho) & np.isnan(table["rho_series_time"]) & (n >= 3)] = CODE["constant series"]
    return status
