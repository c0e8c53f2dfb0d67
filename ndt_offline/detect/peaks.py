"""Peaks: all that a detector might report at any threshold, as plain columns to store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.detectors import Detector, as_series, find_detector
from ndt_offline.detect.gls import TAILS, accepted, candidates, check_threshold
from ndt_offline.detect.pieces import split
from ndt_offline.detect.surrogates import draw
from ndt_offline.detect.transition import Array, Steps, Transition, from_columns, to_columns
from ndt_offline.errors import UsageError

Table = dict[str, NDArray[Any]]
DRAWS = 10
MATCHED = ("drops_out", "index", "T", "Tt", "nu")


@dataclass(frozen=True)
class Peaks:
    """What a detector found in some series and in noise matched to them.

    found    the fields of `Transition`, and `series`: a row per peak, lowest threshold
    matched  series, draw, drops_out, index, T, Tt, nu: a row per peak of a draw of matched noise
    series   status (code of `pieces.STATUS`), points, draws: a row per series

    The columns answer every threshold from the detector's floor up exactly as a new run would.
    """

    detector: str
    params: dict[str, Any]
    found: Table
    matched: Table
    series: Table


def find_peaks(
    values: Any,
    steps: Any = None,
    detector: str = "steps",
    draws: int = DRAWS,
    seed: int | tuple[int, ...] = 0,
    **params: Any,
) -> Peaks:
    """Peaks of one series [n] at training steps [n], and of `draws` series of matched noise.

    The unit of work: an executor maps it over series and puts the results together with
    `join_peaks`. Give each series a seed of its own, as (seed, number of the series). A series
    that cannot be tested has no peaks, no draws and a status that says why.
    """
    x, at = as_series(values, steps)
    chosen = find_detector(detector)
    known = chosen.params(**params)
    if chosen.name == "steps":
        check_threshold(known["threshold"])
    if chosen.name == "steps" or draws:
        columns, status, fits = candidates(x, at, describe=chosen.name == "steps")
        points = sum(len(f.points) for f in fits)
        noise = draw(x, fits, draws, seed)
    else:  # nothing asks for a noise model
        status, pieces = split(x, at)
        points, noise = sum(map(len, pieces)), np.zeros((0, len(x)))
    if chosen.name != "steps":
        columns = run_at_floor(chosen, x, at, known)
    rows = [_compact(chosen, row, at, known) for row in noise]
    drawn = {k: np.concatenate([np.zeros(0)] + [r[k] for r in rows]) for k in MATCHED}
    which = np.repeat(np.arange(len(rows)), [len(r["nu"]) for r in rows])
    return Peaks(
        detector=detector,
        params=known,
        found={"series": np.zeros(len(columns["index"]), np.int64), **columns},
        matched={"series": np.zeros(len(which), np.int64), "draw": which, **drawn},
        series={
            "status": np.array([status], np.uint8),
            "points": np.array([points]),
            "draws": np.array([len(rows)]),
        },
    )


def _compact(chosen: Detector, x: Array, steps: Steps, params: dict[str, Any]) -> Table:
    if chosen.name == "steps":
        return candidates(x, steps, describe=False)[0]
    return run_at_floor(chosen, x, steps, params)


def run_at_floor(chosen: Detector, x: Array, steps: Steps, params: dict[str, Any]) -> Table:
    """Columns of a rule at the lowest threshold that is stored; infinite `drops_out` where the
    rule has no threshold to sweep."""
    if chosen.sweeps:
        params = params | {"threshold": min(chosen.floor, params["threshold"])}
    columns = to_columns(chosen.rule(x, steps, **params))
    if not chosen.sweeps:
        columns["drops_out"] = np.full(len(columns["index"]), np.inf)
    return columns


def join_peaks(parts: Iterable[Peaks], used_up: bool = False) -> Peaks:
    """Peaks of many series, numbered in the order given.

    used_up: take each column out of the parts as it is joined, so that memory holds them once.
    """
    parts, take = list(parts), dict.pop if used_up else dict.__getitem__
    if not parts:
        raise UsageError("no peaks to join")
    first = np.cumsum([0] + [len(p.series["status"]) for p in parts[:-1]])
    tables = []
    for name in ("found", "matched", "series"):
        each: list[Table] = [getattr(p, name) for p in parts]
        counts = [len(t["series"]) for t in each] if name != "series" else []
        table = {key: np.concatenate([take(t, key) for t in each]) for key in list(each[0])}
        if name != "series":
            table["series"] = table["series"] + np.repeat(first, counts)
        tables.append(table)
    return Peaks(parts[0].detector, parts[0].params, *tables)


def threshold_of(peaks: Peaks, threshold: float | None) -> float:
    """The threshold asked for, or the one the peaks were found with; checked against the floor."""
    chosen = find_detector(peaks.detector)
    if not chosen.sweeps:
        if threshold is not None:
            raise UsageError(
                f"detector {peaks.detector!r} has no stored thresholds",
                remedy="run it again with the parameters you want",
            )
        return 0.0
    value = peaks.params["threshold"] if threshold is None else float(threshold)
    floor = min(chosen.floor, peaks.params["threshold"])
    if value < floor:
        raise UsageError(
            f"threshold {value:g} is below {floor:g}, the lowest that is stored",
            remedy=f"{floor:g} or more",
        )
    return value


def keeps(peaks: Peaks, table: Table, threshold: float | None = None) -> NDArray[np.bool_]:
    """Which rows of `found` or `matched` are transitions at that threshold."""
    value = threshold_of(peaks, threshold)
    if peaks.detector == "steps":
        return accepted(table, value, peaks.params.get("tails", TAILS))
    if peaks.detector == "zscore":  # the existing tool asks for more than the threshold
        return table["drops_out"] > value
    return table["drops_out"] >= value


def select(peaks: Peaks, threshold: float | None = None) -> Table:
    """Columns of the transitions at that threshold (default: the one of the run)."""
    keep = keeps(peaks, peaks.found, threshold)
    return {name: column[keep] for name, column in peaks.found.items()}


def transitions(peaks: Peaks, threshold: float | None = None, series: int = 0) -> list[Transition]:
    """The transitions of one series at that threshold: what `detect` would return."""
    table = select(peaks, threshold)
    mine = table["series"] == series
    return from_columns({name: column[mine] for name, column in table.items()})
