"""Which series' jumps can be believed: those on whose matched noise the detector keeps its rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.evidence import FALL, RATE, p_value
from ndt_offline.detect.peaks import Peaks, Table
from ndt_offline.detect.pursuit import LOWEST
from ndt_offline.detect.transition import Array

HEAVY = 16.0  # degrees of freedom below which a series' tails are heavy
DOUBT = 0.01  # chance of the strongest matched peak below which the envelope does not hold
MANY = 3.0  # Poisson deviations above the envelope from which peaks are too many
ROUNDED = 1e-6  # of the largest value: differences below it are rounding (of float32)
OFF = 0.05  # of the grid's step: values on it may be this far off
COARSE = 2.0  # steps of the grid: a typical change no larger than this is coarse


def strength(table: Table) -> Array:
    """|T| of every peak, or |Tt| where tails are heavy and it is less.

    From 16 degrees of freedom to Gaussian, |T| is believed: there |Tt| of a large step is
    mostly the price of not knowing the tail, and a lone step in a walk would need twice the size.
    """
    plain = np.abs(table["T"])
    heavy = table["nu"] < HEAVY
    return np.where(heavy, np.minimum(plain, np.abs(table["Tt"])), plain)


def trusted(peaks: Peaks, but: int | None = None) -> NDArray[np.bool_]:
    """Series whose matched noise gives no more and no stronger peaks than p says. [series].

    In all draws together: peaks of |T| >= 4 at most three Poisson deviations above the envelope of
    the Gaussian nulls (`p_value`), and the strongest no rarer than .01 under it. Both, because
    ten draws cannot show how strong the strongest of a hundred would be: a series whose noise
    gives very strong false peaks also gives many weak ones. `but` leaves a draw out. A series
    without draws is not trusted.
    """
    many, matched = len(peaks.series["status"]), peaks.matched
    used = np.ones(len(matched["draw"]), bool) if but is None else matched["draw"] != but
    draws = np.maximum(peaks.series["draws"] - (but is not None), 0)
    points = draws * peaks.series["points"]
    top = np.zeros(many)
    np.maximum.at(top, matched["series"][used], strength(matched)[used])
    count = np.bincount(matched["series"][used], minlength=many)
    expected = points / 1000 * np.exp(RATE - FALL * LOWEST)
    few = count <= expected + MANY * np.sqrt(expected)
    return np.asarray(few & (p_value(top, points) > DOUBT) & (draws > 0))


def on_grid(values: Array) -> bool:
    """Whether a series' values lie on one grid, and so coarsely that it jumps when it changes.

    True for whole numbers, and where all differences are multiples of the smallest one and the
    typical change from point to point is at most two of it: shares of a few units, accuracies on
    a few examples.
    """
    known = values[np.isfinite(values)]
    return bool((known == np.round(known)).all()) or grid_step(values) > 0.0


def grid_step(values: Array) -> float:
    """Distance of the coarse grid that the values [n] lie on; 0 where there is none.

    NaN are left out. The smallest difference between two levels counts as the step if all others
    are multiples of it, to a twentieth; coarse: half of all changes are at most two steps.
    """
    known = values[np.isfinite(values)]
    levels = np.unique(known)
    apart = np.diff(levels)
    apart = apart[apart > ROUNDED * np.abs(known).max(initial=0.0)]
    if not len(apart) or np.median(np.abs(np.diff(known))) > (COARSE + OFF) * apart.min():
        return 0.0
    times = np.round(apart / apart.min())
    step = float(apart.sum() / times.sum())  # the smallest alone is rounded
    return step if np.abs(apart / step - times).max() <= OFF else 0.0
