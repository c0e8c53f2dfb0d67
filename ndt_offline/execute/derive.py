"""Everything that follows from stored spectra: metrics, transitions, couplings.

The only writer of metrics and of `derived/`. Each stage is found again by the hash of its
parameters and of the spectra, so that a new threshold computes only what it changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import zarr

from ndt_offline.detect.counts import counts
from ndt_offline.detect.detectors import find_detector
from ndt_offline.detect.peaks import Peaks, find_peaks, join_peaks, select
from ndt_offline.execute.question import TARGETS, Question
from ndt_offline.measure.metrics import choose_metrics
from ndt_offline.relate import couplings_table
from ndt_offline.store.results import SPACES, Results, SeriesId
from ndt_offline.store.schema import WIDE, put_series
from ndt_offline.store.tables import find_stage, json_of, put_stage, read_table


@dataclass(frozen=True)
class Answers:
    """The groups of `derived/` that answer a question, and its series in order."""

    series: tuple[SeriesId, ...]
    transitions: zarr.Group
    couplings: zarr.Group


def derive(results: Results, question: Question) -> Answers:
    """Answer a question from the spectra alone. Reads no checkpoint, loads no torch."""
    put_metrics(results, question.metrics)
    ids, values = collect(results, question.metrics)
    answers = Answers(
        ids,
        _transitions(results, question, ids, values),
        _couplings(results, question, ids, values),
    )
    newest = {"transitions": answers.transitions.basename, "couplings": answers.couplings.basename}
    results.root.attrs["newest"] = newest
    return answers


def put_metrics(results: Results, names: tuple[str, ...]) -> None:
    """Compute the metrics that are missing or older than the spectra, `WIDE` steps at a time."""
    rows, key = len(results.steps), results.content_key()
    for space in results.spaces:
        group = results.root[space.name]
        missing = [n for n in names if n not in group or group[n].attrs.get("spectra") != key]
        chosen = choose_metrics(tuple(missing)) if missing and space.layers else {}
        series = {name: np.full((rows, len(space.layers)), np.nan) for name in chosen}
        for start in range(0, rows if chosen else 0, WIDE):
            part = slice(start, start + WIDE)
            spectra = results.spectra(space.name, part)
            for name, metric in chosen.items():
                series[name][part] = metric(spectra)
        for name, values in series.items():
            put_series(group, name, ("step", "layer"), values, units="1", spectra=key)


def collect(results: Results, metrics: tuple[str, ...]) -> tuple[tuple[SeriesId, ...], np.ndarray]:
    """Every series of the store: its names, and values [series, step]."""
    ids, columns = [], []
    for name, space in zip(SPACES, results.spaces, strict=True):
        series = {metric: results.metric(name, metric) for metric in metrics if space.layers}
        for index, layer in enumerate(space.layers):
            for metric, values in series.items():
                ids.append(SeriesId(name, layer.name, metric))
                columns.append(values[:, index])
    return tuple(ids), np.array(columns).reshape(len(ids), len(results.steps))


def _transitions(
    results: Results, question: Question, ids: tuple[SeriesId, ...], values: np.ndarray
) -> zarr.Group:
    derived = results.root["derived"]
    peaks_key, peaks = _peaks(results, question, values)
    key = _key(peaks_key, question.threshold)
    found = find_stage(derived, "transitions", key)
    if found is not None:
        return found
    chosen = select(peaks, question.threshold)
    beside = counts(peaks, question.threshold, groups=np.arange(len(ids)))
    per_series = {
        **_names(ids),
        "status": peaks.series["status"],
        "points": peaks.series["points"],
        "observed": beside.observed[:, 0],
        "matched": beside.matched[:, 0],
        "matched_low": beside.low[:, 0],
        "matched_high": beside.high[:, 0],
    }
    tables = {"transitions": (("transition",), chosen), "series": (("series",), per_series)}
    about = {
        "detector": question.detector,
        "threshold": float(beside.thresholds[0]),
        "parameters": dict(peaks.params),
        "draws": question.draws,
        "seed": question.seed,
        "peaks": peaks_key,
    }
    return put_stage(derived, "transitions", key, tables, about)


def _peaks(results: Results, question: Question, values: np.ndarray) -> tuple[str, Peaks]:
    """Peaks of every series, from the store where they were found before."""
    detector = find_detector(question.detector)
    params = detector.params(**question.params)
    if question.threshold is not None and question.threshold < min(
        detector.floor, params.get("threshold", 0)
    ):
        params["threshold"] = question.threshold  # below what is usually stored: found anew
    derived = results.root["derived"]
    key = _key(
        results.content_key(), question.metrics, question.detector, json_of(params),
        question.draws, question.seed,
    )  # fmt: skip
    stored = find_stage(derived, "peaks", key)
    if stored is not None:
        tables = (read_table(stored, name) for name in ("found", "matched", "series"))
        return key, Peaks(question.detector, params, *tables)
    steps = results.steps
    peaks = join_peaks(
        find_peaks(row, steps, question.detector, question.draws, (question.seed, number), **params)
        for number, row in enumerate(values)
    )
    tables_of = {"found": peaks.found, "matched": peaks.matched, "series": peaks.series}
    dims = {"found": "peak", "matched": "matched_peak", "series": "series"}
    put_stage(
        derived,
        "peaks",
        key,
        {name: ((dims[name],), table) for name, table in tables_of.items()},
        {"detector": question.detector, "parameters": params, "draws": question.draws},
    )
    return key, peaks


def _couplings(
    results: Results, question: Question, ids: tuple[SeriesId, ...], values: np.ndarray
) -> zarr.Group:
    derived = results.root["derived"]
    targets = {name: results.signal(name) for name in TARGETS}
    targets = {name: target for name, target in targets.items() if np.isfinite(target).any()}
    digest = hashlib.blake2b(b"".join(t.tobytes() for t in targets.values()), digest_size=8)
    key = _key(
        results.content_key(),
        question.metrics,
        question.smooth,
        sorted(targets),
        digest.hexdigest(),
    )
    found = find_stage(derived, "couplings", key)
    if found is not None:
        return found
    series = {**_names(ids)}
    columns: dict[str, np.ndarray] = {}
    if targets and len(ids):
        stacked = np.array(list(targets.values()))
        columns = dict(couplings_table(values, stacked, results.steps, smooth=question.smooth))
    names = {"target": np.array(list(targets), dtype=object)}
    tables = {
        "couplings": (("series", "target"), columns),
        "series": (("series",), series),
        "targets": (("target",), names),
    }
    return put_stage(derived, "couplings", key, tables, {"smooth": question.smooth})


def _names(ids: tuple[SeriesId, ...]) -> dict[str, np.ndarray]:
    return {
        key: np.array([getattr(i, key) for i in ids], dtype=object)
        for key in ("space", "layer", "metric")
    }


def _key(*parts: object) -> str:
    text = repr(parts).encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()
