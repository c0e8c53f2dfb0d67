"""Stages about discrete steps: peaks, the transitions among them, sweeps, events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ndt_offline.detect.detectors import Detector, find_detector
from ndt_offline.detect.peaks import Peaks, find_peaks, join_peaks, select
from ndt_offline.detect.tally import counts
from ndt_offline.detect.transition import FIELDS
from ndt_offline.detect.trust import on_grid
from ndt_offline.detect.verdict import judge
from ndt_offline.execute.forks import in_forks
from ndt_offline.execute.question import Question
from ndt_offline.execute.sources import source_key
from ndt_offline.extension import source_of
from ndt_offline.store.results import Results, SeriesId, names_of
from ndt_offline.store.tables import json_of, key_of, read_table, stage_of

if TYPE_CHECKING:
    from ndt_offline.detect.events import Event

# What finding peaks imports.
LOADS = tuple(f"scipy.{name}" for name in ("fft", "linalg", "ndimage", "special"))
SWEPT = 25  # thresholds of a sweep that was not asked for
SPAN = 6.0  # from the lowest stored threshold to the highest of that sweep
FAILED = 255  # a detector's arithmetic broke down on a series


def put_peaks(
    results: Results, question: Question, values: np.ndarray, workers: int | None = None
) -> tuple[str, Peaks]:
    """Peaks of every series, with their key: from the store where they were found before."""
    detector = find_detector(question.detector)
    given = dict(question.params)
    if question.threshold is not None and not detector.sweeps:
        given["threshold"] = question.threshold
    params = detector.params(**given)
    asked = question.threshold
    if detector.sweeps and asked is not None and asked < min(detector.floor, params["threshold"]):
        params["threshold"] = asked  # below what is usually stored: found anew
    key = key_of(
        source_key("detect"), FIELDS, results.content_key(question.measures), question.metrics,
        question.detector,
        _source(detector), json_of(params), question.draws, question.seed,
    )  # fmt: skip

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        steps = results.steps

        def peaks_of(number: int) -> Peaks:
            seed, row = (question.seed, number), values[number]
            return _peaks_of(row, steps, question.detector, question.draws, seed, params)

        found = in_forks(peaks_of, len(values), workers, LOADS)
        peaks = join_peaks(found or [_nothing(question, params)], used_up=True)
        tables = {
            "found": (("peak",), peaks.found),
            "matched": (("matched_peak",), peaks.matched),
            "series": (("series",), peaks.series),
        }
        about = {"detector": question.detector, "parameters": params, "draws": question.draws}
        return tables, about

    group = stage_of(results.root["derived"], "peaks", key, make)
    tables = (read_table(group, name) for name in ("found", "matched", "series"))
    return key, Peaks(question.detector, params, *tables)


def put_transitions(
    results: Results,
    question: Question,
    ids: tuple[SeriesId, ...],
    values: np.ndarray,
    found: tuple[str, Peaks],
) -> zarr.Group:
    """The peaks that stand at the threshold, and counts beside those on matched noise.

    And the counts of the series that can be judged; of other detectors than `steps` it is not
    known which can.
    """
    key, peaks = found
    threshold = _threshold(question, peaks)

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        chosen = select(peaks, threshold)
        count = max(len(ids), 1)
        beside = counts(peaks, threshold, groups=np.arange(count))
        whole = counts(peaks, threshold)
        per_series = {
            **names_of(ids),
            "status": peaks.series["status"][: len(ids)],
            "points": peaks.series["points"][: len(ids)],
            "observed": beside.observed[: len(ids), 0],
            "matched": beside.matched[: len(ids), 0],
            "matched_low": beside.low[: len(ids), 0],
            "matched_high": beside.high[: len(ids), 0],
            "noisier": beside.warnings[: len(ids), 0],
        }
        judged = None
        if question.detector == "steps" and question.draws > 0:
            judged = judge(peaks, _able(values, count), threshold)
            per_series["judged"] = judged.series[: len(ids)]
        tables = {"transitions": (("transition",), chosen), "series": (("series",), per_series)}
        about = {
            "detector": question.detector,
            "threshold": float(beside.thresholds[0]),
            "parameters": dict(peaks.params),
            "draws": question.draws,
            "seed": question.seed,
            "peaks": key,
            "observed": int(whole.observed[0, 0]),
            "matched": [float(x[0, 0]) for x in (whole.matched, whole.low, whole.high)],
        }
        if judged is not None:
            about["judged"] = {
                "series": int(per_series["judged"].sum()),
                "of": len(ids),
                "observed": judged.observed,
                "matched": [judged.matched, judged.low, judged.high],
            }
        return tables, about

    return stage_of(results.root["derived"], "transitions", key_of(2, key, threshold), make)


def _able(values: np.ndarray, count: int) -> NDArray[np.bool_]:
    """Series that are on no coarse grid: those on one jump whenever they change. [count]."""
    able = np.zeros(count, bool)
    able[: len(values)] = [not on_grid(row) for row in values]
    return able


def put_sweep(results: Results, question: Question, found: tuple[str, Peaks]) -> zarr.Group:
    """Counts at many thresholds beside matched noise, from the stored peaks alone."""
    key, peaks = found
    detector = find_detector(question.detector)
    levels = question.sweep
    if levels is None:
        floor = min(detector.floor, peaks.params.get("threshold", np.inf))
        levels = tuple(np.linspace(floor, floor + SPAN, SWEPT)) if detector.sweeps else ()

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        if not levels:
            columns = dict.fromkeys(("threshold", *SWEEP), np.zeros(0))
        else:
            all_of = counts(peaks, levels)
            columns = {"threshold": all_of.thresholds}
            columns |= {
                name: getattr(all_of, field)[0]
                for name, field in zip(SWEEP, ("observed", "matched", "low", "high"), strict=True)
            }
        return {"sweep": (("threshold",), columns)}, {"peaks": key}

    return stage_of(results.root["derived"], "sweep", key_of(key, levels), make)


SWEEP = ("observed", "matched", "matched_low", "matched_high")


def put_events(
    results: Results, question: Question, values: np.ndarray, found: tuple[str, Peaks]
) -> zarr.Group:
    """Transitions of several series at one step, tested over all series; only for `steps`.

    Left out are series on a coarse grid, which jump whenever they change, and those on whose
    matched noise the detector fires: there its p does not hold.
    """
    from ndt_offline.detect.events import mark_events
    from ndt_offline.detect.surprise import events_beside_noise

    key, peaks = found
    marks = _marks(results)

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        events: list[Event] = []
        trusted = np.zeros(0, np.int64)
        # Without matched noise nobody knows in which series the detector can be believed.
        if question.detector == "steps" and question.draws > 0 and len(values):
            events, trusted = events_beside_noise(peaks, results.steps, _able(values, len(values)))
        events = mark_events(events, results.steps, marks)
        columns = {
            "step": np.array([e.step for e in events], np.int64),
            "p": np.array([e.p for e in events], np.float64),
            "series": np.array([len(set(e.series)) for e in events], np.int64),
            "marks": np.array([", ".join(e.marks) for e in events], object),
        }
        members = [(n, s, t, at) for n, e in enumerate(events)
                   for s, t, at in zip(e.series, e.T, e.at, strict=True)]  # fmt: skip
        inside = dict(zip(("event", "series", "T", "step"), _turned(members, 4), strict=True))
        for name in ("event", "series", "step"):
            inside[name] = inside[name].astype(np.int64)
        tables = {"events": (("event",), columns), "members": (("member",), inside)}
        about = {"peaks": key, "marks": {name: list(at) for name, at in marks.items()}}
        return tables, about | {
            "tested": len(trusted), "series": len(values), "draws": question.draws
        }  # fmt: skip

    return stage_of(results.root["derived"], "events", key_of(4, key, sorted(marks.items())), make)


def _threshold(question: Question, peaks: Peaks) -> float | None:
    return question.threshold if find_detector(peaks.detector).sweeps else None


def _peaks_of(
    row: np.ndarray,
    steps: np.ndarray,
    detector: str,
    draws: int,
    seed: tuple[int, ...],
    params: Mapping[str, Any],
) -> Peaks:
    try:
        return find_peaks(row, steps, detector, draws, seed, **params)
    except np.linalg.LinAlgError:
        # One series must not stop the others. It is listed as not tested.
        flat = find_peaks(np.zeros(len(row)), steps, "steps", 0, seed)
        flat.series["status"][:] = FAILED
        return Peaks(detector, dict(params), flat.found, flat.matched, flat.series)


def _nothing(question: Question, params: Mapping[str, Any]) -> Peaks:
    flat = find_peaks(np.zeros(1), np.zeros(1, np.int64), "steps", 0)
    return Peaks(question.detector, dict(params), flat.found, flat.matched, flat.series)


def _source(detector: Detector) -> str:
    """A user's own detector is known by its text: edited, it is run again."""
    if not detector.own:
        return ""
    _ = detector.rule  # says what is wrong with the name, if anything is
    text = source_of(detector.home)
    if text is None:
        return str(np.random.default_rng().integers(2**63))  # unknown: never the same
    return key_of(text)


def _marks(results: Results) -> dict[str, tuple[int, ...]]:
    """What else happened in training: restarts, and changes of the learning rate and the epoch."""
    marks = {"restart": tuple(results.attrs.get("restarts", ()))}
    for name, scalar in (("learning rate", "lr"), ("epoch", "epoch")):
        values = results.signal(scalar)
        known = np.isfinite(values)  # the initial state has no update, and so no scalars
        values, at = values[known], results.steps[known]
        changed = at[1:][np.diff(values) != 0]
        # A schedule that changes at every step marks nothing.
        marks[name] = tuple(map(int, changed)) if len(changed) <= len(values) // 10 else ()
    return {name: at for name, at in marks.items() if at}


def _turned(rows: list[tuple[Any, ...]], width: int) -> list[np.ndarray]:
    return [np.array([row[i] for row in rows], np.float64) for i in range(width)]
