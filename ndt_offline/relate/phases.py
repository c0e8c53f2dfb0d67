"""Phases of many series: how many, where they begin, what changes, with intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ndt_offline.errors import UsageError
from ndt_offline.relate.bins import log_bins
from ndt_offline.relate.bootstrap import (
    MOST,
    Fitted,
    binned_noise,
    draw_noise,
    evidence,
    fit_series,
    p_of_more,
    refits,
)
from ndt_offline.relate.gaps import (
    Bools,
    as_rows,
    checked_steps,
    fill,
    filled_enough,
    present_groups,
)
from ndt_offline.relate.hinges import Curves, Search, prepare
from ndt_offline.relate.noise import Draws, persistence, raw_draws
from ndt_offline.relate.phase import (
    PhaseFit,
    early_interval,
    early_share,
    magnified,
    read_phases,
)
from ndt_offline.relate.ranks import Floats
from ndt_offline.relate.volatility import volatility

FEWEST_SAMPLES = 50
FEWEST_BINS = 12
ALPHA = 0.05


@dataclass(frozen=True)
class _Asked:
    phases: int | None
    draws: int
    level: float
    seed: int


def fit_phases(
    series: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    phases: int | None = None,
    draws: int = 199,
    level: float = 0.9,
    seed: int = 0,
) -> list[PhaseFit]:
    """Continuous piecewise-linear curves in log(step + 1) through every series [k, n]: k fits.

    phases   1, 2 or 3; default: as many as the likelihood ratio asks for at 5 %
    draws    of the parametric bootstrap behind that test and all intervals; 0 gives neither, and
             then `phases` is 3 unless said. Every series sees the same draws of `seed`
    level    of the intervals of breakpoints, changes and the early share

    The curve is fitted to ~100 bins of equal width in log(step + 1), weighted by an ARMA(4, 1)
    noise model, with every pair of breakpoints tried. Each draw has its own noise coefficients,
    corrected for what the fit took from them; breakpoint intervals are widened by half a bin.
    Noise is counted from sample to sample. A phase is `stable` if the interval of its
    change holds 0 or the change is under a tenth of the curve's range, `unclear` if that
    interval leaves room for a quarter of the series' range, else `rises` or `falls`. Three
    straight phases can describe any smooth curve; they do not prove three regimes. Raises
    UsageError for steps that are negative or do not increase and for impossible options.
    """
    rows = as_rows(series, "series")
    if phases not in (None, 1, 2, 3):
        raise UsageError(f"phases={phases}", remedy="1, 2, 3, or None to let the data choose")
    if draws != 0 and draws < 19:
        raise UsageError(f"{draws} draws give no interval", remedy="draws=99, or draws=0 for none")
    clock = checked_steps(steps, rows.shape[1])
    clock = np.arange(rows.shape[1], dtype=np.float64) if clock is None else clock
    if len(clock) and clock[0] < 0:
        raise UsageError(f"the first step is {clock[0]:g}", remedy="count steps from 0")
    asked = _Asked(phases, draws, level, seed)
    fits: dict[int, PhaseFit] = {}
    for members, keep in present_groups(rows):
        found = _fit_group(rows[members], clock, keep, asked)
        fits |= {int(i): replace(fit, series=int(i)) for i, fit in zip(members, found, strict=True)}
    return [fits[i] for i in range(len(rows))]


def _fit_group(rows: Floats, clock: Floats, keep: Bools, asked: _Asked) -> list[PhaseFit]:
    """Series that lack the same samples."""
    where = np.flatnonzero(keep)
    if len(where) < FEWEST_SAMPLES:
        return [PhaseFit(0, "too short")] * len(rows)
    if not filled_enough(rows[:1], rows[:1]).all():
        return [PhaseFit(0, "too many gaps")] * len(rows)
    span = slice(where[0], where[-1] + 1)
    # Squares of 1e160 and of 1e-170 are no numbers; a power of two takes nothing from any digit.
    exponents = np.frexp(np.abs(rows[:, keep]).max(axis=1))[1]
    rows, bins = fill(np.ldexp(rows[:, span], -exponents[:, None])), log_bins(clock[span])
    if len(bins.starts) < FEWEST_BINS:
        return [PhaseFit(0, "too short")] * len(rows)
    plain, n, d = prepare(bins, np.diag(1.0 / bins.sizes)), rows.shape[1], asked.draws
    # The draws that made the noise coefficients must not also be fitted with them.
    white = (raw_draws(d, n, asked.seed), raw_draws(d, n, asked.seed + 1)) if d else None
    scales = volatility(rows, bins.t)
    status = "ok" if len(where) == n else "gaps filled"
    return [
        replace(magnified(_fit_one(row, scale, plain, white, asked), exponent), status=status)
        if np.ptp(row) > 0
        else PhaseFit(0, "constant series")
        for row, scale, exponent in zip(rows, scales, exponents.tolist(), strict=True)
    ]


def _fit_one(
    row: Floats, scale: Floats, plain: Search, white: tuple[Draws, Draws] | None, asked: _Asked
) -> PhaseFit:
    # In units of the series' own spread: no tolerance may depend on what it is measured in.
    mean, unit = float(row.mean()), float(np.std(row))
    fitted = fit_series((row - mean) / unit, scale, plain)
    count, p, drawn = asked.phases or MOST, (np.nan, np.nan), None
    if white is not None:
        noise = binned_noise(fitted, draw_noise(fitted, white[0]), white[1])
        count, p = (asked.phases, p) if asked.phases else count_phases(fitted, noise)
        drawn = _in_units(refits(fitted, count, noise, count)[0], mean, unit)
    curve = _in_units(fitted.curves[count - 1], mean, unit)
    low, high = early_interval(drawn, asked.level)
    spread = float(fitted.noise.deviation[0]) * unit
    return PhaseFit(
        series=0,
        status="ok",
        phases=read_phases(curve, drawn, asked.level, plain.bins.width, spread),
        values=tuple(curve.values[0].tolist()),
        p_two=p[0],
        p_three=p[1],
        early=float(early_share(curve)[0]),
        early_low=low,
        early_high=high,
        noise=spread,
        persistence=persistence(fitted.noise),
        evidence=evidence(fitted, (row - mean) / unit, count),
    )


def count_phases(fitted: Fitted, noise: Floats) -> tuple[int, tuple[float, float]]:
    """How many phases, with the p of one and of two being enough, on binned `noise` [D, B].

    A second phase is taken when p_two <= .05; only then is a third one asked for.
    """
    p_two = p_of_more(fitted, 1, refits(fitted, 1, noise, 2))
    if p_two > ALPHA:
        return 1, (p_two, np.nan)
    p_three = p_of_more(fitted, 2, refits(fitted, 2, noise, 3))
    return (3 if p_three <= ALPHA else 2), (p_two, p_three)


def _in_units(curves: Curves, mean: float, unit: float) -> Curves:
    return replace(curves, values=curves.values * unit + mean)
