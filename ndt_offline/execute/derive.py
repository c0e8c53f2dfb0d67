"""Everything that follows from stored spectra: metrics, transitions, events, phases, couplings.

The only writer of metrics and of `derived/`. Each stage is found again by the hash of its
parameters and of the spectra, so that a new threshold computes only what it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from ndt_offline.execute import jumps, relations
from ndt_offline.execute.forks import in_forks
from ndt_offline.execute.question import Question
from ndt_offline.execute.sources import series_key
from ndt_offline.measure.metrics import Metric, choose_metrics
from ndt_offline.storage.location import files_below
from ndt_offline.store.arrays import WIDE, put_series
from ndt_offline.store.results import ASKED, SPACES, Results, SeriesId
from ndt_offline.store.schema import STATUS


@dataclass(frozen=True)
class Answers:
    """The groups of `derived/` that answer a question, by stage, and its series in order."""

    series: tuple[SeriesId, ...]
    stages: dict[str, zarr.Group]


PART = 64 * 2**20  # bytes of spectra that are read at a time
LARGE = 2**19  # singular values from which their metrics are computed on all cores


def derive(results: Results, question: Question, workers: int | None = None) -> Answers:
    """Answer a question from the spectra alone. Reads no checkpoint, loads no torch.

    workers: processes for what takes long, default one per core; the answer is the same.
    """
    results.check_owner()
    if results.attrs.get(ASKED) != list(question.measures):
        results.say(**{ASKED: list(question.measures)})
    put_metrics(results, question.metrics, workers)
    ids, values = collect(results, question.metrics, question.measures)
    # What a series lacks is said in its status; numpy's own warnings would say it again.
    with np.errstate(all="ignore"):
        peaks = jumps.put_peaks(results, question, values, workers)
        stages = {
            "transitions": jumps.put_transitions(results, question, ids, values, peaks),
            "sweep": jumps.put_sweep(results, question, peaks),
            "events": jumps.put_events(results, question, values, peaks),
            "couplings": relations.put_couplings(results, question, ids, values, workers),
            "phases": relations.put_phases(results, question, ids, values, workers),
        }
    newest = {name: group.basename for name, group in stages.items()}
    rates = results.answer("rates")
    if rates is not None and rates.attrs.get("spectra") == series_key(results):
        newest["rates"] = rates.basename
    results.say(newest=newest)
    return Answers(ids, stages)


def put_metrics(results: Results, names: tuple[str, ...], workers: int | None = None) -> None:
    """Compute the metrics that are missing or older than the spectra, a part at a time."""
    rows, key = len(results.steps), series_key(results)
    for space in results.spaces:
        group = results.root[space.name]
        measured = (np.asarray(group["status"][:]) == STATUS["ok"]).any(axis=1)
        missing = [n for n in names if not _stands(group, n, key, measured, results.path)]
        chosen = choose_metrics(tuple(missing)) if missing and space.layers else {}
        series = {name: np.full((rows, len(space.layers)), np.nan) for name in chosen}
        block, row = int(results.attrs["block"]), 8 * max(1, len(space.layers) * space.width)
        length = min(WIDE, max(1, PART // (row * block)) * block)  # whole chunks
        for start in range(0, rows if chosen else 0, length):
            part = slice(start, start + length)
            spectra = results.spectra(space.name, part)
            for name, values in zip(chosen, _metrics_of(spectra, chosen, workers), strict=True):
                series[name][part] = values
        for name, values in series.items():
            put_series(group, name, ("step", "layer"), values, units="1", spectra=key)


def _metrics_of(
    spectra: np.ndarray, chosen: Mapping[str, Metric], workers: int | None
) -> list[np.ndarray]:
    """Each metric of these spectra; few of them are not worth a fork."""
    metrics = list(chosen.values())
    if spectra.size < LARGE:
        return [metric(spectra) for metric in metrics]
    return in_forks(lambda number: metrics[number](spectra), len(metrics), workers)


def _stands(group: zarr.Group, name: str, key: str, measured: np.ndarray, store: Path) -> bool:
    """Whether a metric is there, of these spectra, with every chunk: a lost one reads as NaN."""
    if name not in group or group[name].attrs.get("spectra") != key:
        return False
    array, stored = group[name], files_below(store / group.path / name / "c")
    length = array.chunks[0]
    return all(
        f"{start // length}/0" in stored
        for start in range(0, len(measured), length)
        if measured[start : start + length].any()
    )


def collect(
    results: Results, metrics: tuple[str, ...], measures: tuple[str, ...] = ()
) -> tuple[tuple[SeriesId, ...], np.ndarray]:
    """Every series asked for: its names, and values [series, step]; those of measures last.

    A series without one number is left out: its layer was refused.
    """
    ids, columns = [], []
    for name, space in zip(SPACES, results.spaces, strict=True):
        series = {metric: results.metric(name, metric) for metric in metrics if space.layers}
        for index, layer in enumerate(space.layers):
            for metric, values in series.items():
                ids.append(SeriesId(name, layer.name, metric))
                columns.append(values[:, index])
    for (name, quantity), (measure, at) in results.quantities.items():
        for index, layer in enumerate(results.layers(name) if measure in measures else ()):
            values = results.measured(measure)[:, index, at]
            if np.isfinite(values).any():
                ids.append(SeriesId(name, layer.name, quantity))
                columns.append(values)
    return tuple(ids), np.array(columns).reshape(len(ids), len(results.steps))
