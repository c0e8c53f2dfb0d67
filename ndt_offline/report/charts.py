"""Which charts the report holds, and how much each may take: bounded, however long the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ndt_offline.report import panels
from ndt_offline.report.marks import Marks
from ndt_offline.report.pairs import matched_layers
from ndt_offline.report.summary import Row
from ndt_offline.report.table import printable
from ndt_offline.report.tidy import Table, event_members, rows_of, tidy_table
from ndt_offline.store.results import Results
from ndt_offline.store.tables import read_table

POINTS = 40_000  # drawn points of all series' charts together
FEWEST, FINEST = 80, 400  # points of one chart
CHARTS = 400  # series drawn; the others are in the tables
MARKED = 6_000  # jumps marked in all charts together, the strongest of each
HEATED = 60  # heat maps drawn
COUPLED = 40  # rows of a coupling chart

Grouped = dict[tuple[str, ...], list[Row]]


@dataclass(frozen=True)
class Found:
    """What charts look up, by (space, layer, metric)."""

    phases: Grouped
    transitions: Grouped
    joined: Grouped  # events that the series takes part in
    events: list[Row]
    couplings: list[Row]
    strongest: list[Row]  # transitions of all series, as many as are listed
    count: int  # of all transitions


def found_in(store: Results, series: int, listed: int) -> Found:
    """What is shown of what was found, for `series` charts and lists of `listed` rows."""
    events = rows_of(tidy_table(store, "events"))
    joined: Grouped = defaultdict(list)
    for number, name in dict.fromkeys(event_members(store)):
        joined[name].append(events[number])
    couplings, jumps = rows_of(tidy_table(store, "couplings")), tidy_table(store, "transitions")
    # A long run has more jumps than rows of Python can hold: choose first.
    owner, strength = jump_strengths(store)
    marked = strongest(owner, strength, max(5, MARKED // max(series, 1)))
    top = strongest(np.zeros_like(owner), strength, listed)
    return Found(
        _grouped(tidy_table(store, "phases")), _grouped(_only(jumps, marked)), joined, events,
        couplings, rows_of(_only(jumps, top)), len(owner),
    )  # fmt: skip


def jump_strengths(store: Results) -> tuple[np.ndarray, np.ndarray]:
    """Of every transition the number of its series, and the threshold at which it drops out."""
    group = store.answer("transitions")
    if group is None:
        return np.zeros(0, np.int64), np.zeros(0)
    rows = read_table(group, "transitions")
    return rows["series"].astype(np.int64), np.abs(np.nan_to_num(rows["drops_out"]))


def strongest(owner: np.ndarray, strength: np.ndarray, most: int) -> np.ndarray:
    """Indices, increasing, of the `most` strongest of each owner [n]."""
    order = np.lexsort((-strength, owner))
    sorted_owner = owner[order]
    rank = np.arange(len(owner)) - np.searchsorted(sorted_owner, sorted_owner)
    return np.sort(order[rank < most])


def _only(table: Table, index: np.ndarray) -> Table:
    return {name: column[index] for name, column in table.items()}


def _grouped(table: Table) -> Grouped:
    grouped: Grouped = defaultdict(list)
    for row in rows_of(table):
        grouped[row["space"], row["layer"], row["metric"]].append(row)
    return grouped


def points_of(count: int, rows: int = 0) -> int:
    """Points of each of `count` charts of `rows` checkpoints; a few more to draw every one."""
    points = int(np.clip(POINTS // max(count, 1), FEWEST, FINEST))
    return rows if rows <= 1.5 * points else points


def merged_words(steps: np.ndarray, count: int) -> str:
    """What a drawn point stands for, where it is more than one checkpoint."""
    most = points_of(count, len(steps))
    if len(steps) <= most:
        return "every checkpoint is drawn"
    return (
        f"{len(steps)} checkpoints are drawn as {most} points: each is the mean of about "
        f"{len(steps) / most:.0f} checkpoints, with their lowest and highest as a band"
    )


def behind(store: Results, marks: Sequence[Marks], count: int) -> dict[str, Markup]:
    """What each of `count` series' charts shows behind the series, on both axes."""
    steps, loss = store.steps.astype(np.float64), store.signal("loss")
    if not count:
        return {}
    most = points_of(count, len(steps))
    axes = {"linear": False, "log": True}
    return {name: panels.behind(steps, loss, most, marks, log) for name, log in axes.items()}


def series_sections(
    store: Results, rows: Sequence[Row], found: Found, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Charts by metric, the headline metric first, until `CHARTS` are drawn."""
    ordered = [row for metric in metrics for row in rows if row["metric"] == metric][:CHARTS]
    most = points_of(len(ordered), len(store.steps))
    sections: dict[tuple[str, str], dict[str, Any]] = {}
    steps = store.steps.astype(np.float64)
    for number, row in enumerate(ordered):
        key = row["metric"], row["space"]
        section = sections.setdefault(key, {"metric": key[0], "space": key[1], "charts": []})
        name = row["space"], row["layer"], row["metric"]
        values, jumps = store.series(*name), found.transitions.get(name, ())
        title = printable(f"{row['metric']} of {row['space']} {row['layer']} over training steps")
        linear, log = (
            panels.series_chart(
                steps, values, most, title=title, phases=found.phases.get(name, ()),
                transitions=jumps, events=found.joined.get(name, ()), log=log,
            )
            for log in (False, True)
        )  # fmt: skip
        section["charts"].append({"row": row, "number": number, "linear": linear, "log": log})
    return list(sections.values())


def heat_maps(store: Results) -> list[dict[str, Any]]:
    """Spectra over time of the first layers of each space."""
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


def pair_charts(store: Results, metric: str) -> list[dict[str, Any]]:
    """Each activation with its weight, relative to their first values."""
    steps, charts = store.steps.astype(np.float64), []
    matched = matched_layers(store)[: HEATED // 2]
    for activation, weight in matched:
        both = [
            store.series("activations", activation, metric),
            store.series("weights", weight, metric),
        ]
        with np.errstate(all="ignore"):
            lines = [("value", both[0] / _first(both[0])), ("other", both[1] / _first(both[1]))]
        title = printable(f"{metric} of {activation} and {weight}, relative to the start")
        most = points_of(4 * len(matched), len(steps))
        drawn = [
            panels.line_chart(steps, lines, most, title=title, x_label="training step", log=log)
            for log in (False, True)
        ]
        charts.append(
            {"activation": activation, "weight": weight, "linear": drawn[0], "log": drawn[1]}
        )
    return charts


def _first(values: np.ndarray) -> float:
    finite = values[np.isfinite(values) & (values != 0)]
    return float(finite[0]) if len(finite) else np.nan


def coupling_charts(found: Found, metric: str, targets: Sequence[str]) -> list[dict[str, Any]]:
    """A chart per target: rho of every layer beside that of training time."""
    charts = []
    for target in targets:
        rows = [r for r in found.couplings if r["metric"] == metric and r["target"] == target]
        if rows:
            shown = [r | {"layer": printable(r["layer"])} for r in rows[:COUPLED]]
            drawn = panels.coupling_chart(shown, target)
            charts.append({"target": target, "svg": drawn, "left": len(rows) - len(shown)})
    return charts


def sweep_chart(store: Results) -> Markup | None:
    """Jumps by threshold; None where the detector has none."""
    sweep = tidy_table(store, "sweep")
    if len(sweep.get("threshold", ())) < 2:
        return None
    lines = [("other", sweep["matched"]), ("value", sweep["observed"].astype(np.float64))]
    return panels.line_chart(
        sweep["threshold"], lines, FINEST, title="jumps by threshold, found and by chance",
        x_label="threshold", zero=True, width=720, y_label="jumps",
        bands=[(sweep["matched_low"], sweep["matched_high"])],
    )  # fmt: skip


def rates_chart(store: Results) -> dict[str, Any] | None:
    """Jumps by sampling interval; None until `ndt-offline sampling` has run."""
    rates = tidy_table(store, "rates")
    if not len(rates.get("every", ())):
        return None
    lines = [("other", rates["matched"]), ("value", rates["found"])]
    low, high = rates["found"] - rates["spread"], rates["found"] + rates["spread"]
    drawn = panels.line_chart(
        rates["every"].astype(np.float64), lines, FINEST, title="jumps by sampling interval",
        x_label="steps between samples (logarithmic)", log=True, zero=True, y_label="jumps",
        bands=[(low, high)], width=720,
    )  # fmt: skip
    return {"svg": drawn, "rows": rows_of(rates)}
