"""report.html: one file, no network, bounded in size; what it shows comes from the store alone."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ndt_offline import __version__
from ndt_offline.report import charts, panels
from ndt_offline.report.document import Analysis, parameters_of, probe_ends
from ndt_offline.report.marks import marks_of
from ndt_offline.report.ownership import check_replaceable
from ndt_offline.report.table import (
    HEAD,
    baseline_sentences,
    coupling_cell,
    figure,
    jumps_cell,
    phases_cell,
    printable,
    sentences,
    unit_of,
)
from ndt_offline.storage.location import locate
from ndt_offline.store.whole_file import replacing

LISTED = 400  # rows of a table
PRINTED = 40  # of them on paper
TARGETS = ("loss", "grad_norm")


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
    shown = [row for row in rows if row["metric"] == head]
    found = charts.found_in(store, min(len(rows), charts.CHARTS), LISTED)
    targets = [t for t in TARGETS if any(f"rho_{t}" in row for row in rows)]
    sections = charts.series_sections(
        store, rows, found, [head, *(m for m in metrics if m != head)]
    )
    drawn, marks = sum(len(s["charts"]) for s in sections), marks_of(store)
    heated = len(panels.heat_rows(store)) if len(store.steps) else 0
    return {
        "name": printable(locate(analysis.run).resolve().name),
        "run": analysis.run, "store": store, "head": head, "steps": store.steps,
        "usable": int(store.usable.sum()), "probe": probe_ends(store), "rows": rows,
        "shown": shown, "targets": targets, "jumps_cell": jumps_cell, "phases_cell": phases_cell,
        "coupling_cell": coupling_cell, "sections": sections, "listed": LISTED,
        "printed": PRINTED, "drawn": drawn, "marks": marks, "unit_of": unit_of,
        "behind": charts.behind(store, marks, drawn),
        "merged": charts.merged_words(store.steps, drawn),
        "sentences": [printable(s) for s in sentences(store, shown, targets, "below")],
        "baseline": [printable(s) for s in baseline_sentences(analysis.baseline)],
        "departures": analysis.baseline.departures if analysis.baseline else [],
        "heat": charts.heat_maps(store), "heated": heated,
        "pairs": charts.pair_charts(store, head),
        "coupling_charts": charts.coupling_charts(found, head, targets),
        "couplings": found.couplings, "events": found.events,
        "transitions": found.strongest, "jumps": found.count,
        "sweep": charts.sweep_chart(store), "rates": charts.rates_chart(store),
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
