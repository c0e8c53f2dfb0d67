"""One phase, the phases of one series, and how both are read off fitted curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.hinges import Curves
from ndt_offline.relate.ranks import Floats

EARLY = 0.25
# A phase that changes the curve by less than this share of its range is called stable.
SMALL = 0.1

COLUMNS = ("start", "start_low", "start_high", "end", "change", "low", "high")
# Where the interval leaves room for a change of this share of the series' range, the fit cannot
# tell: persistent noise is not stability.
ROOM = 0.25
# What a phase does. The article calls the first three collapse, expansion and stabilisation.
LABELS = ("none", "falls", "rises", "stable", "unclear")
STATUS = ("not computed", "ok", "gaps filled", "constant series", "too short", "too many gaps")
SCALARS = (
    "p_two",
    "p_three",
    "early",
    "early_low",
    "early_high",
    "noise",
    "persistence",
    "evidence",
)


@dataclass(frozen=True)
class Phase:
    """One stretch of one trend; `start`, its interval and `end` are training steps."""

    label: str
    start: float
    start_low: float
    start_high: float
    end: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class PhaseFit:
    """The phases of one series; none, and a status that says why, where there is no fit.

    values            of the curve: at each phase's start, and at the last step
    p_two, p_three    p of one phase, of two phases, being enough (NaN: not asked)
    early             share of the curve's ups and downs in the first 25 % of training
    noise             standard deviation around the curve
    persistence       correlation of that noise from one sample to the next
    evidence          log-likelihood of the phases above that of one straight line (of one phase:
                      above no trend), each in noise as slow as suits it
    """

    series: int
    status: str
    phases: tuple[Phase, ...] = ()
    values: tuple[float, ...] = ()
    p_two: float = np.nan
    p_three: float = np.nan
    early: float = np.nan
    early_low: float = np.nan
    early_high: float = np.nan
    noise: float = np.nan
    persistence: float = np.nan
    evidence: float = np.nan


def label_of(change: float, low: float, high: float, span: float, noise: float = 0.0) -> str:
    """`stable` if the interval holds 0 or |change| < span / 10, else by the sign.

    `unclear` if the interval holds 0 and reaches beyond a quarter of the series' range, which
    is the span of the curve and four standard deviations of the noise around it: a change that
    large may have happened. Without an interval (NaN) the size alone decides.
    """
    if np.isnan(change):
        return "unclear"
    if low <= 0 <= high and max(-low, high) > ROOM * (span + 4 * noise):
        return "unclear"
    if low <= 0 <= high or abs(change) < SMALL * span or span == 0:
        return "stable"
    return "rises" if change > 0 else "falls"


def read_phases(
    curve: Curves, draws: Curves | None, level: float, bin_width: float, noise: float
) -> tuple[Phase, ...]:
    """The phases of one curve ([1] of `Curves`), with intervals from the refitted draws [D]."""
    knots, values = curve.knots[0], curve.values[0]
    changes, span = np.diff(values), float(np.ptp(values))
    blank = np.full((2, len(changes)), np.nan)
    low, high = blank if draws is None else _between(np.diff(draws.values, axis=1), level)
    first, last = blank if draws is None else _between(draws.knots[:, :-1], level)
    # Within a bin nothing is known of where the bend lies, and no draw shows that.
    edges = np.clip([first - bin_width / 2, last + bin_width / 2], knots[0], knots[-1])
    edges[:, 0] = knots[0] if draws is not None else np.nan
    starts, (before, after) = np.expm1(knots).round(6), np.expm1(edges).round(6)
    return tuple(
        Phase(
            label_of(changes[i], low[i], high[i], span, noise),
            *(float(v) for v in (starts[i], before[i], after[i], starts[i + 1])),
            *(float(v) for v in (changes[i], low[i], high[i])),
        )
        for i in range(len(changes))
    )


def magnified(fit: PhaseFit, exponent: int) -> PhaseFit:
    """The fit of the same series times 2^exponent."""

    def times(value: float) -> float:
        return float(np.ldexp(value, exponent))

    phases = tuple(
        replace(p, change=times(p.change), low=times(p.low), high=times(p.high)) for p in fit.phases
    )
    values = tuple(times(value) for value in fit.values)
    return replace(fit, phases=phases, values=values, noise=times(fit.noise))


def early_share(curves: Curves) -> Floats:
    """Share of the total variation of each curve [D] in the first quarter of its steps: [D]."""
    first, last = np.expm1(curves.knots[:, :1]), np.expm1(curves.knots[:, -1:])
    quarter = np.log1p(first + EARLY * (last - first))
    lengths = np.diff(curves.knots, axis=1)
    covered = np.clip((quarter - curves.knots[:, :-1]) / lengths, 0, 1)
    rises = np.abs(np.diff(curves.values, axis=1))
    total = rises.sum(axis=1)
    return np.divide(
        (rises * covered).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0
    )


def _between(draws: Floats, level: float) -> Floats:
    tails = [(1 - level) / 2, (1 + level) / 2]
    # The (D + 1) q-th of D ordered draws: with 99 draws the 5th and the 95th, not further in.
    return np.nanquantile(draws, tails, axis=0, method="weibull")


def early_interval(draws: Curves | None, level: float) -> tuple[float, float]:
    """Interval of the early share from the refitted draws."""
    if draws is None:
        return np.nan, np.nan
    low, high = _between(early_share(draws)[:, None], level)
    return float(low[0]), float(high[0])


def phases_table(fits: Sequence[PhaseFit]) -> dict[str, NDArray[Any]]:
    """Fits as columns for a store: per phase [k, 3] (NaN, label 0, where there is none), else [k].

    `label` and `status` are uint8 codes of `LABELS` and `STATUS`; `count` is the number of phases.
    """
    table: dict[str, NDArray[Any]] = {
        name: np.array([getattr(fit, name) for fit in fits], dtype=np.float64) for name in SCALARS
    }
    table["status"] = np.array([STATUS.index(fit.status) for fit in fits], dtype=np.uint8)
    table["count"] = np.array([len(fit.phases) for fit in fits], dtype=np.uint8)
    table["label"] = np.zeros((len(fits), 3), dtype=np.uint8)
    table |= {name: np.full((len(fits), 3), np.nan) for name in COLUMNS}
    for row, fit in enumerate(fits):
        for place, phase in enumerate(fit.phases):
            table["label"][row, place] = LABELS.index(phase.label)
            for name in COLUMNS:
                table[name][row, place] = getattr(phase, name)
    return table
