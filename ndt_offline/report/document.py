"""The whole answer as one JSON document: what `ndt-analyze --json` prints.

    format        1; keys are added, never renamed, within one format
    version       of ndt-offline
    run, store, report        paths; report is null where none was written
    checkpoints, usable       rows of the store, and those that were measured
    steps         [first, last] training step
    probe         {loss, accuracy, loss_val, accuracy_val: [first, last]} of those known
    parameters    {replay, transitions, events, phases, couplings, sweep}: what was asked
    series        a row per series: see `report.summary.summary_rows`
    transitions, events, phases, fits, couplings, sweep
                  tables as lists of rows: columns as in `report.columns.COLUMNS`
    notes         sentences; problems: {what, path, step, remedy} of what could not be used
    signs         of failure: {name, where, step, words}
    alerts        rules of --fail-on that were met, as sentences
    baseline      null, or {baseline, runs, rate, critical, series, steps, departures: [{series,
                  step, value, low, high, deviation, worst, share}]}: where it leaves the bands

null stands for a number that does not exist. Analysing several paths prints a list of documents;
--watch prints one after another.
The series' values over the steps are not in it: `ndt-offline export`, or the store itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from ndt_offline import __version__
from ndt_offline.report.baselines import Comparison
from ndt_offline.report.failures import Signature
from ndt_offline.report.summary import Row
from ndt_offline.report.tidy import rows_of, tidy_table
from ndt_offline.store.results import Results
from ndt_offline.store.schema import QUANTITIES

FORMAT = 1
TABLES = ("transitions", "events", "phases", "fits", "couplings", "sweep")
STAGES = ("transitions", "events", "phases", "couplings", "sweep")
_OWN = ("complete", "time")


class Analysis(Protocol):
    """What is shown of a finished analysis: `pipeline.Result` has it."""

    @property
    def run(self) -> str: ...
    @property
    def store(self) -> Path: ...
    @property
    def report(self) -> Path | None: ...
    @property
    def table(self) -> Sequence[Row]: ...
    @property
    def problems(self) -> Sequence[Any]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def signs(self) -> Sequence[Signature]: ...
    @property
    def alerts(self) -> Sequence[str]: ...
    @property
    def command(self) -> str: ...
    @property
    def baseline(self) -> Comparison | None: ...
    @property
    def results(self) -> Results: ...


def document_of(analysis: Analysis) -> dict[str, Any]:
    """The document of one analysis, as plain data."""
    store = analysis.results
    return {
        "format": FORMAT,
        "version": __version__,
        "run": analysis.run,
        "store": str(analysis.store),
        "report": str(analysis.report) if analysis.report else None,
        "checkpoints": len(store.steps),
        "usable": int(store.usable.sum()),
        "steps": [int(store.steps[0]), int(store.steps[-1])] if len(store.steps) else None,
        "probe": probe_ends(store),
        "parameters": parameters_of(store),
        "series": list(analysis.table),
        **{name: rows_of(tidy_table(store, name)) for name in TABLES},
        "notes": list(analysis.notes),
        "problems": [asdict(p) if is_dataclass(p) else dict(p) for p in analysis.problems],  # type: ignore[arg-type]
        "signs": [asdict(sign) for sign in analysis.signs],
        "alerts": list(analysis.alerts),
        "baseline": asdict(analysis.baseline) if analysis.baseline else None,
    }


def probe_ends(store: Results) -> dict[str, list[float]]:
    """First and last value of every quantity of the probe that is known."""
    ends = {}
    for name in QUANTITIES:
        values = store.signal(f"probe_{name}")
        values = values[values == values]
        if len(values):
            ends[name] = [float(values[0]), float(values[-1])]
    return ends


def parameters_of(store: Results) -> dict[str, Any]:
    """Everything the newest answers depend on."""
    setup = dict(store.attrs.get("setup", {}))
    found: dict[str, Any] = {
        "replay": {"key": setup.get("key"), "loss": setup.get("loss")}
        | dict(setup.get("parameters", {}))
    }
    for stage in STAGES:
        group = store.answer(stage)
        about = dict(group.attrs) if group is not None else {}
        found[stage] = {key: value for key, value in about.items() if key not in _OWN}
    return found
