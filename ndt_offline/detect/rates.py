"""Sampling rates: what the same detector finds when fewer of the stored points are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.detectors import as_series, find_detector
from ndt_offline.detect.pieces import STATUS, split
from ndt_offline.detect.surrogates import matched_noise
from ndt_offline.detect.transition import Array, Steps
from ndt_offline.errors import UsageError

EVERY = (5, 10, 25, 50, 100, 500)


@dataclass(frozen=True)
class Rates:
    """Transitions found per sampling rate, summed over series. One entry per rate.

    every    training steps from one point to the next; points: left of each series (median)
    found    mean over the offsets; spread: SD over the offsets (0 where there is only one)
    matched  the same detector on noise matched to the full series, then thinned alike
    status   worst of the series: `pieces.STATUS` code; "too short" means nothing can be told
    """

    every: NDArray[np.int64]
    points: Array
    found: Array
    spread: Array
    matched: Array
    status: NDArray[np.uint8]

    @property
    def remarks(self) -> list[str]:
        """In words, per rate: what the points that are left can tell."""
        said = {
            "ok": "",
            "low power": "few points are left: most steps are missed",
            "too short": "too few points are left to tell",
        }
        return [said.get(STATUS[code], STATUS[code]) for code in self.status.tolist()]


def rates_of(
    values: Any,
    steps: Any = None,
    detector: str = "steps",
    every: Sequence[int] = EVERY,
    draws: int = 3,
    seed: int | tuple[int, ...] = 0,
    **params: Any,
) -> Rates:
    """Thin one series to each rate, at every possible offset, and count.

    Rates below the recorded cadence, and those that are no multiple of it, are left out. Matched
    noise is drawn from the full series, so that it stands for the noise that was there. A count
    that falls with the rate no faster than its matched noise is no sign of missed transitions.
    """
    x, at = as_series(values, steps)
    if len(at) < 2:
        raise UsageError("a series of one point has no sampling rate")
    cadence = float(np.median(np.diff(at)))
    kept = [e for e in every if e >= cadence and e % cadence == 0]
    noise = matched_noise(x, at, draws, seed)
    rows = [_rate(x, at, noise, round(e / cadence), detector, params) for e in kept]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    points, found, spread, matched = (np.array(c, np.float64) for c in columns[:4])
    return Rates(np.array(kept), points, found, spread, matched, np.array(columns[4], np.uint8))


def _rate(
    x: Array, at: Steps, noise: Array, stride: int, detector: str, params: dict[str, Any]
) -> tuple[float, float, float, float, int]:
    chosen = find_detector(detector)
    known = chosen.params(**params)
    thin = [slice(offset, None, stride) for offset in range(min(stride, len(x)))]
    found = [len(chosen.rule(x[s], at[s], **known)) for s in thin]
    drawn = [len(chosen.rule(row[s], at[s], **known)) for row in noise for s in thin]
    points = [len(x[s]) for s in thin]
    status = max(split(x[s], at[s])[0] for s in thin)
    spread = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
    matched = float(np.mean(drawn)) if drawn else float("nan")
    return float(np.median(points)), float(np.mean(found)), spread, matched, status


def join_rates(parts: Iterable[Rates]) -> Rates:
    """Counts summed over series; spreads as of independent series; the worst status."""
    parts = list(parts)
    if not parts:
        raise UsageError("no series to join")
    first = parts[0]
    if any(not np.array_equal(p.every, first.every) for p in parts):
        raise UsageError("series of different cadence cannot be pooled")
    return Rates(
        first.every,
        np.median([p.points for p in parts], axis=0),
        np.sum([p.found for p in parts], axis=0),
        np.sqrt(np.sum([p.spread**2 for p in parts], axis=0)),
        np.nansum([p.matched for p in parts], axis=0),
        np.max([p.status for p in parts], axis=0),
    )
