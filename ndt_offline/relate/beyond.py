"""Coupling beyond the common clock: the four tests, their p, the lag, the effective n."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.combine import simes
from ndt_offline.relate.filters import detrended, scaled
from ndt_offline.relate.gaps import Bools, fill, filled_enough
from ndt_offline.relate.lag import lead
from ndt_offline.relate.levels import Columns, by_block
from ndt_offline.relate.ranks import Floats, unit_ranks
from ndt_offline.relate.rhythm import without_rhythm
from ndt_offline.relate.serial import effective_n, p_of_pairs
from ndt_offline.relate.shift import p_of_shift

SHORTEST = 100
SMOOTH = 1e-3
CHUNK = 4_000_000
BEYOND = (
    "n_effective",
    "p_shift",
    "rho_detrended",
    "p_detrended",
    "rho_differenced",
    "p_differenced",
    "p",
    "lag",
    "lag_low",
    "lag_high",
    "rho_lag",
    "p_lag",
)
# The first three see what happens at once. The fourth sees one series follow the other, at little
# cost to the rest: without it two AR(1) .9 with shocks of .5 five samples apart are found in 1 of
# 10 cases, with it always.
PARTS = ("p_shift", "p_detrended", "p_differenced", "p_lag")


def beyond_columns(x: Floats, y: Floats) -> Columns:
    """Columns [k, t] of `BEYOND` for series [k, n] and targets [t, n] on one regular grid.

    Gaps are filled by straight lines when they are at most a tenth of the span; otherwise, and
    with fewer than 100 samples, the pair stays NaN. Lags are in grid points.
    """
    columns: Columns = {name: np.full((len(x), len(y)), np.nan) for name in BEYOND}
    filled = fill(y)
    for rows in _chunks(x):
        views = {name: column[rows] for name, column in columns.items()}
        by_block(fill(x[rows]), filled, views, SHORTEST, _beyond_block)
    enough = filled_enough(x, y)
    return {name: np.where(enough, column, np.nan) for name, column in columns.items()}


def _chunks(x: Floats) -> list[slice]:
    """Rows by the few million samples: what is held at once must not grow with the run."""
    size = max(64, CHUNK // max(1, x.shape[1]))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _beyond_block(a: Floats, b: Floats, keep: Bools) -> Columns:
    # Gaps are filled: what is kept is one stretch without holes.
    a, b = a[:, keep], b[:, keep]
    columns: Columns = {"n_effective": effective_n(unit_ranks(a), unit_ranks(b))}
    columns["p_shift"] = p_of_shift(a, b)
    ra, rb = _ranked(_fluctuations(a)), _ranked(without_rhythm(_fluctuations(b)))
    columns["rho_detrended"], columns["p_detrended"] = p_of_pairs(ra, rb)
    columns |= lead(ra, rb)
    ra, rb = _ranked(_changes(a)), _ranked(without_rhythm(_changes(b)))
    columns["rho_differenced"], columns["p_differenced"] = p_of_pairs(ra, rb)
    tested = ~(np.isnan(columns["p_detrended"]) & np.isnan(columns["p_differenced"]))
    parts = np.stack([columns[part] for part in PARTS], axis=-1)
    columns["p"] = np.where(tested, simes(parts), np.nan)
    return columns


def _fluctuations(values: Floats) -> Floats:
    return scaled(_without_dust(detrended(values), values))


def _changes(values: Floats) -> Floats:
    # The mean change of a steep stretch is trend as well.
    steps = _without_dust(detrended(np.diff(values, axis=1)), values)
    return scaled(steps)


def _ranked(values: Floats) -> Floats:
    return unit_ranks(_rough(values))


def _without_dust(changes: Floats, values: Floats) -> Floats:
    # A straight line minus its trend is rounding error, and rounding error has ranks too.
    dust = 1e-13 * np.abs(values).max(axis=1, keepdims=True)
    return np.where(np.abs(changes) <= dust, 0.0, changes)


def _rough(values: Floats) -> Floats:
    """Rows [k, n] with those that only bend, and do not fluctuate, set to 0.

    Mean square of the steps over mean square of the values: 2 for white noise, .2 for a random
    walk after detrending, under .0005 for noise-free curves, whose bends would be taken for
    fluctuations that agree.
    """
    steps = np.diff(values, axis=1)
    rough = np.einsum("kn,kn->k", steps, steps) > SMOOTH * np.einsum("kn,kn->k", values, values)
    return np.where(rough[:, None], values, 0.0)
