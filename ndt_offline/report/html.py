"""report.html: one file, no network, bounded in size; what it shows comes from the store alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ndt_offline import __version__
from ndt_offline.report import panels
from ndt_offline.report.document import Analysis, parameters_of, probe_ends
from ndt_offline.report.ownership import check_replaceable
from ndt_offline.report.pairs import matched_layers
from ndt_offline.report.summary import Row
from ndt_offline.report.table import (
    HEAD,
    coupling_cell,
    figure,
    jumps_cell,
    phases_cell,
    printable,
    sentences,
)
from ndt_offline.report.tidy import event_members, rows_of, tidy_table
from ndt_offline.storage.location import locate
from ndt_offline.store.results import Results
from ndt_offline.store.whole_file import replacing

POINTS = 60_000  # drawn points of all series' charts together
FEWEST, FINEST = 80, 400  # points of one chart
CHARTS = 400  # series drawn; the others are in the tables
MARKS = 8_000  # jumps marked in all charts together, the strongest of each
HEATED = 60  # heat maps drawn
LISTED = 400  # rows of a table
TARGETS = ("loss", "grad_norm")

Grouped = dict[tuple[str, ...], list[Row]]


@dataclass(frozen=True)
class Found:
    """What charts look up, by (space, layer, metric)."""

    phases: Grouped
    transitions: Grouped
    joined: Grouped  # events that the series takes part in
    events: list[Row]
    couplings: list[Row]


def write_report(analysis: Analysis, path: Path, metric: str | None = None) -> None:
    """Draw the report of a finished analysis. `metric` is drawn first, by default stable_rank."""
    text = page_of(analysis, metric)
    check_replaceable(path)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def page_of(analysis: Analysis, metric: str | None = None) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names in a run are anybody's: jinja2 escapes only when it is told to.
    home = Environment(
        loader=PackageLoader("ndt_offline", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    home.filters |= {"figure": figure, "printable": printable, "short": _short}
    return home.get_template("report.html.j2").render(**context(analysis, metric))


def context(analysis: Analysis, metric: str | None) -> dict[str, Any]:
    """Everything the template shows."""
    store, rows = analysis.results, list(analysis.table)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    head = metric or (HEAD if HEAD in metrics else next(iter(metrics), HEAD))
    found, shown = _found(store), [row for row in rows if row["metric"] == head]
    targets = [t for t in TARGETS if any(f"rho_{t}" in row for row in rows)]
    sections = _series_sections(store, rows, found, [head, *(m for m in metrics if m != head)])
    return {
        "name": printable(locate(analysis.run).resolve().name),
        "run": analysis.run, "store": store, "head": head, "steps": store.steps,
        "usable": int(store.usable.sum()), "probe": probe_ends(store), "rows": rows,
        "shown": shown, "targets": targets, "jumps_cell": jumps_cell, "phases_cell": phases_cell,
        "coupling_cell": coupling_cell, "sections": sections, "listed": LISTED,
        "drawn": sum(len(s["charts"]) for s in sections),
        "sentences": [printable(s) for s in sentences(store, shown, targets, "below")],
        "heat": _heat_maps(store), "pairs": _pair_charts(store, head), "heat_limit": HEATED,
        "coupling_charts": _coupling_charts(found, head, targets),
        "couplings": found.couplings, "events": found.events,
        "transitions": [t for group in found.transitions.values() for t in group],
        "sweep": _sweep_chart(store), "rates": _rates(store),
        "notes": analysis.notes, "problems": [_plain_problem(p) for p in analysis.problems],
        "parameters": _as_json(parameters_of(store)), "versions": versions(),
        "command": printable(analysis.command),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of this package and of what computes for it."""
    found = {"ndt-offline": __version__}
    for name in ("numpy", "scipy", "torch", "zarr", "dask"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _found(store: Results) -> Found:
    grouped: dict[str, Grouped] = {}
    for table in ("phases", "transitions"):
        grouped[table] = defaultdict(list)
        for row in rows_of(tidy_table(store, table)):
            grouped[table][row["space"], row["layer"], row["metric"]].append(row)
    events = rows_of(tidy_table(store, "events"))
    joined: Grouped = defaultdict(list)
    for number, name in event_members(store):
        if events[number] not in joined[name]:
            joined[name].append(events[number])
    couplings = rows_of(tidy_table(store, "couplings"))
    return Found(grouped["phases"], grouped["transitions"], joined, events, couplings)


def _series_sections(
    store: Results, rows: Sequence[Row], found: Found, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Charts by metric, the headline metric first, until `CHARTS` are drawn."""
    ordered = [row for metric in metrics for row in rows if row["metric"] == metric][:CHARTS]
    most = int(np.clip(POINTS // max(len(ordered), 1), FEWEST, FINEST))
    sections: dict[tuple[str, str], dict[str, Any]] = {}
    steps, loss = store.steps.astype(np.float64), store.signal("loss")
    marked = max(5, MARKS // max(len(ordered), 1))
    behind = {log: panels.loss_shape(steps, loss, most, log) for log in (False, True)}
    for number, row in enumerate(ordered):
        key = row["metric"], row["space"]
        section = sections.setdefault(key, {"metric": key[0], "space": key[1], "charts": []})
        name = row["space"], row["layer"], row["metric"]
        title = f"{row['metric']} of {row['space']} {row['layer']} over training steps"
        jumps = _strongest(found.transitions.get(name, ()), marked)
        linear, logarithmic = (
            panels.series_chart(
                steps, store.series(*name), most, title=printable(title), loss=behind[log],
                phases=found.phases.get(name, ()), transitions=jumps,
                events=found.joined.get(name, ()), log=log,
            )
            for log in (False, True)
        )  # fmt: skip
        chart = {"row": row, "number": number, "linear": linear, "log": logarithmic}
        section["charts"].append(chart)
    return list(sections.values())


def _strongest(transitions: Sequence[Row], most: int) -> Sequence[Row]:
    if len(transitions) <= most:
        return transitions
    return sorted(transitions, key=lambda t: -abs(t["drops_out"] or 0.0))[:most]


def _heat_maps(store: Results) -> list[dict[str, Any]]:
    if not len(store.steps):
        return []
    rows = panels.heat_rows(store)
    steps, maps = store.steps[rows].astype(np.float64), []
    for space in store.spaces:
        chosen = space.layers[: HEATED // 2]
        if not chosen:
            continue
        array = store.root[f"{space.name}/singular_values"]
        spectra = array.oindex[rows, slice(0, len(chosen)), slice(None)]
        for index, layer in enumerate(chosen):
            title = printable(f"spectrum of {space.name} {layer.name} over training steps")
            linear, log = (panels.spectrum_chart(steps, spectra[:, index], title, x)
                           for x in (False, True))  # fmt: skip
            maps.append({"layer": layer, "space": space.name, "linear": linear, "log": log})
    return maps


def _pair_charts(store: Results, metric: str) -> list[dict[str, Any]]:
    steps, charts = store.steps.astype(np.float64), []
    for activation, weight in matched_layers(store)[: HEATED // 2]:
        both = [
            store.series("activations", activation, metric),
            store.series("weights", weight, metric),
        ]
        with np.errstate(all="ignore"):
            lines = [("value", both[0] / _first(both[0])), ("other", both[1] / _first(both[1]))]
        title = printable(f"{metric} of {activation} and {weight}, relative to the start")
        drawn = [
            panels.line_chart(steps, lines, FINEST, title=title, x_label="training step", log=log)
            for log in (False, True)
        ]
        charts.append(
            {"activation": activation, "weight": weight, "linear": drawn[0], "log": drawn[1]}
        )
    return charts


def _first(values: np.ndarray) -> float:
    finite = values[np.isfinite(values) & (values != 0)]
    return float(finite[0]) if len(finite) else np.nan


def _coupling_charts(found: Found, metric: str, targets: Sequence[str]) -> list[dict[str, Any]]:
    charts = []
    for target in targets:
        rows = [r for r in found.couplings if r["metric"] == metric and r["target"] == target]
        if rows:
            rows = [r | {"layer": printable(r["layer"])} for r in rows[:40]]
            charts.append({"target": target, "svg": panels.coupling_chart(rows, target)})
    return charts


def _sweep_chart(store: Results) -> Markup | None:
    sweep = tidy_table(store, "sweep")
    if len(sweep.get("threshold", ())) < 2:
        return None
    lines = [("other", sweep["matched"]), ("value", sweep["observed"].astype(np.float64))]
    return panels.line_chart(
        sweep["threshold"], lines, FINEST, title="jumps by threshold, found and by chance",
        x_label="threshold", zero=True, width=720,
        bands=[(sweep["matched_low"], sweep["matched_high"])],
    )  # fmt: skip


def _rates(store: Results) -> dict[str, Any] | None:
    rates = tidy_table(store, "rates")
    if not len(rates.get("every", ())):
        return None
    lines = [("other", rates["matched"]), ("value", rates["found"])]
    low, high = rates["found"] - rates["spread"], rates["found"] + rates["spread"]
    drawn = panels.line_chart(
        rates["every"].astype(np.float64), lines, FINEST, title="jumps by sampling interval",
        x_label="steps between samples (log)", log=True, zero=True, bands=[(low, high)], width=720,
    )  # fmt: skip
    return {"svg": drawn, "rows": rows_of(rates)}


def _plain_problem(problem: Any) -> dict[str, Any]:
    return {key: getattr(problem, key) for key in ("what", "path", "step", "remedy")}


def _as_json(value: Any) -> str:
    return printable_lines(json.dumps(value, indent=1, ensure_ascii=True))


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _short(value: Any) -> str:
    if value is None:
        return "\u2013"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
