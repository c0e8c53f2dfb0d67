"""The `steps` detector: generalised-least-squares step filters. The story, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.elimination import REFERENCE, Ranking, eliminate
from ndt_offline.detect.evidence import describe_steps, p_value
from ndt_offline.detect.glitches import without_glitches
from ndt_offline.detect.noise import Noise, fit_noise, median
from ndt_offline.detect.pieces import split
from ndt_offline.detect.pursuit import LOWEST, Search, search
from ndt_offline.detect.tails import GAUSSIAN, t_statistics
from ndt_offline.detect.transition import Array, Points, Steps, Transition, from_columns
from ndt_offline.detect.transition import to_columns as _columns
from ndt_offline.errors import UsageError

TAILS = 4.7


@dataclass(frozen=True)
class Fit:
    """One piece of a series, explained: its points, its noise before anything was taken out, what
    is left without glitches, candidates. All values are (value - centre) / unit."""

    points: Points
    centre: float
    unit: float
    raw: Noise
    clean: Array
    glitches: Array
    found: Search
    ranking: Ranking
    Tt: Array
    nu: float


def fit(values: Array, points: Points) -> Fit:
    """Glitches out, candidates in, ranked, checked for heavy tails."""
    x, centre, unit = standardise(values[points])
    noise = fit_noise(x)
    clean, glitches = without_glitches(x, noise)
    found = search(clean, None if glitches.any() else noise)
    ranking = eliminate(found)
    Tt, nu = t_statistics(clean, found, ranking)
    return Fit(points, centre, unit, noise, clean, glitches, found, ranking, Tt, nu)


def standardise(x: Array) -> tuple[Array, float, float]:
    """The series about its median in units of its spread: squares neither over- nor underflow."""
    centre = median(x)
    rest = x - centre
    size = np.abs(rest)
    unit = median(size) or float(size.max()) or 1.0
    return rest / unit, centre, unit


def candidates(
    values: Array, steps: Steps, describe: bool = True
) -> tuple[dict[str, Any], int, list[Fit]]:
    """Every candidate step of a series with its evidence, whatever the threshold.

    Returns columns (the fields of `Transition`, sorted by index; without `describe` only what a
    count needs), a status code of `pieces.STATUS`, and the fits that matched noise is drawn from.
    """
    status, pieces = split(values, steps)
    fits = [fit(values, points) for points in pieces]
    tested = sum(map(len, pieces))
    parts = [_evidence(f, steps, tested) if describe else _ranks(f) for f in fits]
    if not parts:
        return dict(_columns([])), status, fits
    if len(parts) == 1:
        return parts[0], status, fits
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}, status, fits


def _ranks(f: Fit) -> dict[str, Array]:
    nu = np.full(len(f.Tt), f.nu)
    index = f.points[f.found.at]
    return {
        "index": index, "drops_out": f.ranking.drops_out, "T": f.ranking.T, "Tt": f.Tt, "nu": nu
    }  # fmt: skip


def standing(f: Fit) -> tuple[Points, Array]:
    """Positions in the piece, and sizes, of the steps that stand at the defaults."""
    keep = accepted(_ranks(f), REFERENCE)
    return f.found.at[keep], f.ranking.sizes[keep]


def _evidence(f: Fit, steps: Steps, tested: int) -> dict[str, Any]:
    found, ranking = f.found, f.ranking
    if not len(found.at):
        return dict(_columns([]))
    columns = describe_steps(f.clean, found, ranking, f.Tt, f.nu)
    last = len(f.points) - 1
    at = {
        name: f.points[np.minimum(np.maximum(found.at + columns[name], 0), last)]
        for name in ("low", "high")
    }
    for name in ("size_unbiased", "size_low", "size_high"):
        columns[name] = columns[name] * f.unit
    return columns | {
        "index": f.points[found.at],
        "step": steps[f.points[found.at]],
        "low": steps[at["low"]],
        "high": steps[at["high"]],
        "size": ranking.sizes * f.unit,
        "T": ranking.T,
        "Tt": f.Tt,
        "nu": np.full(len(found.at), f.nu),
        "p": p_value(ranking.T, tested),
        "width": np.array(found.bank.halves, np.float64)[found.row],
        "drops_out": ranking.drops_out,
    }


def accepted(columns: dict[str, Any], threshold: float, tails: float = TAILS) -> NDArray[np.bool_]:
    """Which candidates are transitions: still in at the threshold and, where the innovations
    are not Gaussian, |Tt| of at least `tails`. Boolean [k]."""
    return (columns["drops_out"] >= threshold) & (
        (columns["nu"] >= GAUSSIAN) | (np.abs(columns["Tt"]) >= tails)
    )


def check_threshold(threshold: float) -> None:
    """A `UsageError` for a threshold below the weakest candidate, or no number."""
    if not threshold >= LOWEST:
        raise UsageError(
            f"threshold {threshold:g} is below {LOWEST:g}: no weaker candidates are kept",
            remedy=f"{LOWEST:g} or more; below it noise gives a step in most series",
        )


def find_steps(
    values: Array, steps: Steps, threshold: float = REFERENCE, tails: float = TAILS
) -> list[Transition]:
    """Steps in a series that may trend, wander, calm down and have glitches.

    T is the generalised-least-squares estimate of a step under AR(8) noise with local volatility,
    over its standard error; half widths 16 to 128 points, a trend allowed for. Steps are kept by
    backward elimination at |T| >= threshold. Blind to the first 24 and the last 16 points, to
    most steps under 2 local SD, to everything under 72 points. Not a test of gradual change: for
    that see `segments` and the phases.
    """
    check_threshold(threshold)
    columns, _, _ = candidates(values, steps)
    keep = accepted(columns, threshold, tails)
    return from_columns({name: column[keep] for name, column in columns.items()})
