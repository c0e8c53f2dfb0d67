"""The table on the screen: one row per layer and space, in words, fitting 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ndt_offline.relate.words import OR_WALK
from ndt_offline.report.baselines import Comparison
from ndt_offline.report.tidy import rows_of, tidy_table
from ndt_offline.store.results import Results

HEAD = "stable_rank"  # the metric shown where the user names none
LISTED = 6  # sentences and events on the screen
TABLED = 60  # layers on the screen

Row = dict[str, Any]
_OF = "of each layer's activations on the probe, and of its weights"
EVENT = 0.1  # largest p of an event
BEYOND = 0.25  # of a series' range, that it reaches beyond its ends: said where no phase shows it


def print_table(console: Console, results: Results, rows: Sequence[Row], metric: str) -> None:
    """Layers down, what was found across, for one metric; what it means below."""
    shown = [row for row in rows if row["metric"] == metric]
    targets = [t for t in ("loss", "grad_norm") if any(f"rho_{t}" in row for row in shown)]
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(Text(metric), overflow="fold", min_width=8)
    table.add_column("first \u2192 last", justify="right", no_wrap=True)
    table.add_column("jumps\n(chance)", justify="right", no_wrap=True)
    table.add_column("phases (to step)", overflow="fold")
    for target in targets:
        table.add_column(f"moves with\n{target}", no_wrap=True)
    space = None
    for row in shown[:TABLED]:
        if row["space"] != space:
            space = row["space"]
            table.add_row(Text(space, style="italic"))
        table.add_row(
            Text(printable(f"  {row['layer']}")),
            f"{figure(row['first'])} \u2192 {figure(row['last'])}",
            jumps_cell(row),
            phases_cell(row["phases"], row),
            *(coupling_cell(row, target) for target in targets),
        )
    if unit_of(metric):
        console.print(f"{metric}, in {unit_of(metric)}: {_OF}")
    console.print(table)
    if len(shown) > TABLED:
        console.print(f"  ... and {len(shown) - TABLED} more layers: see the report")
    console.print()
    for line in sentences(results, shown, targets):
        console.print(Text(printable(line)))


def sentences(
    results: Results, shown: Sequence[Row], targets: Sequence[str], rest: str = "see the report"
) -> Iterator[str]:
    """What the whole run shows: counts beside chance, events, couplings beside the clock.

    `rest` says where the ones are that are not listed.
    """
    yield from count_sentences(results, rest)
    if any(OR_WALK in (row.get("phases") or "") for row in shown):
        yield "phases with ?: slow noise, up to a random walk, may do this too"
    if any("unclear" in (row.get("phases") or "") for row in shown):
        yield "unclear: noise leaves room for a change of a quarter of the series' range"
    clocks = {
        target: row[f"clock_{target}"]
        for target in targets
        for row in shown
        if row.get(f"clock_{target}") is not None
    }
    if clocks:
        alone = ", ".join(f"{rho:+.2f} with {target}" for target, rho in clocks.items())
        yield f'training time alone correlates {alone}; "moves with" is beyond that'
    said = [
        f"{row['space']} of {row['layer']}: {row[key]}"
        for row in shown
        for key in (f"words_{target}" for target in targets)
        if row.get(key, "").startswith("moves")
    ]
    yield from said[:LISTED]
    if len(said) > LISTED:
        yield f"... and {len(said) - LISTED} more couplings: {rest}"


def count_sentences(results: Results, rest: str) -> Iterator[str]:
    """Transitions of all series beside matched noise, and events."""
    group = results.answer("transitions")
    about = dict(group.attrs) if group is not None else {}
    if "observed" not in about:
        return
    mean, low, high = (_float(x) for x in about["matched"])
    words = f"jumps in all metrics: {about['observed']} (detector {about['detector']}"
    words += f", threshold {about['threshold']:g})" if about["threshold"] else ")"
    if about["draws"] and mean == mean:
        digits = 1 if mean < 100 else 0
        words += f"; by chance {mean:.{digits}f} ({low:.0f} to {high:.0f})"
        if "judged" not in about and about["detector"] != "steps":
            words += f": {_verdict(about['observed'], low, high)}"
    yield words
    if "judged" in about:
        yield from judged_sentences(about["judged"])
    if about["detector"] != "steps":
        return
    yield from event_sentences(results, int(about["draws"]), rest)


def judged_sentences(judged: dict[str, Any]) -> Iterator[str]:
    """The verdict on the count, where the detector can be held to its rate; what was left out."""
    mean, low, high = (_float(x) for x in judged["matched"])
    left = judged["of"] - judged["series"]
    if judged["series"]:
        words = f"in the {judged['series']} of {judged['of']} series that can be judged:"
        words += f" {judged['observed']}; by chance {mean:.1f} ({low:.0f} to {high:.0f}): "
        yield words + _verdict(judged["observed"], low, high)
    if left:
        words = f"no verdict on {left} series: too short, too smooth, or their values too coarse,"
        yield words + " for the detector to judge"


def event_sentences(results: Results, draws: int, rest: str) -> Iterator[str]:
    """Events, or why there are none, and how far down their p can be known."""
    events, stage = rows_of(tidy_table(results, "events")), results.answer("events")
    tested = dict(stage.attrs) if stage is not None else {}
    many = f"{tested.get('tested', 0)} of {tested.get('series', 0)} series"
    least = 1 / (draws + 1)
    if not events and least > EVENT:
        yield f"events: not tested with {draws} draws of matched noise; --draws 10 would"
    elif not events:
        yield f"events (jumps that noise does not give anywhere in {many}): none"
    for event in sorted(events, key=lambda e: (e["p"] or 0.0, -e["series"]))[:LISTED]:
        marks = f", coincides with {event['marks']}" if event["marks"] else ""
        many = "1 series" if event["series"] == 1 else f"{event['series']} series"
        yield f"event at step {event['step']}: {many}, p {event['p'] or 0.0:.2g}{marks}"
    if len(events) > LISTED:
        yield f"... and {len(events) - LISTED} more events: {rest}"
    if any(event["p"] <= least for event in events):
        yield f"p {least:.2g} is the smallest that {draws} draws of noise can show (--draws)"


def baseline_sentences(beside: Comparison | None) -> Iterator[str]:
    """Whether and where the run leaves the bands of healthy runs."""
    if beside is None:
        return
    away = beside.departures
    told = f"baseline {beside.baseline}: {len(away)} of {beside.series} series leave the bands of"
    told += f" {beside.runs} healthy runs"
    yield told + f" (a healthy run would with a probability of at most {beside.rate:.2g})"
    for row in away[:LISTED]:
        place = f"{figure(row['value'])}, band {figure(row['low'])} to {figure(row['high'])}"
        yield f"  {row['series']} at step {row['step']}: {place}"
    if len(away) > LISTED:
        yield f"  ... and {len(away) - LISTED} more: --json lists all"


def _verdict(observed: int, low: float, high: float) -> str:
    if observed > high:
        return "more than noise like these series gives"
    if observed < low:
        return "fewer than noise like these series gives: the count is no evidence of jumps"
    return "no more than noise like these series gives"


def jumps_cell(row: Row) -> str:
    """Found, and expected by chance; a dash where the detector could not look."""
    if row["status"] not in ("ok", "low power"):
        return "\u2013"
    return f"{row['transitions']} ({figure(row['expected'], 1)})"


def phases_cell(words: str | None, row: Row | None = None) -> str:
    """relate's words for the phases, shortened: `falls to 16, rises to 1049, falls`.

    A question mark stands for "or a random walk"; `sentences` explains it. A single trend says
    nothing of a short start that went elsewhere: with the series' `row`, the extreme that lies
    beyond both ends is said too, as in `falls; highest 4.21 at 255`.
    """
    if words is None:
        return "\u2013"
    if words.startswith("no phases: "):
        return words.removeprefix("no phases: ")
    short = words.replace(OR_WALK, " ?").replace(", then ", ", ").replace(" to step ", " to ")
    single = words.startswith(("falls throughout", "rises throughout"))
    beyond = _beyond(row) if row is not None and single else ""
    return f"{short.replace(' throughout', '')}; {beyond}" if beyond else short


def _beyond(row: Row) -> str:
    """The extreme that lies furthest beyond both ends of a series; empty if none does clearly."""
    if row["first"] is None or row["last"] is None or row["highest"] == row["lowest"]:
        return ""
    ends, span = (row["first"], row["last"]), row["highest"] - row["lowest"]
    above, below = row["highest"] - max(ends), min(ends) - row["lowest"]
    if max(above, below) < BEYOND * span:
        return ""
    name = "highest" if above >= below else "lowest"
    return f"{name} {figure(row[name])} at {row[name + '_at']}"


def coupling_cell(row: Row, target: str) -> str:
    """One word for a sentence of `relate.words`."""
    words = row.get(f"words_{target}")
    if words is None:
        return "\u2013"
    for start, cell in _CELLS.items():
        if words.startswith(start):
            return cell
    return "not tested"


_CELLS = {"moves with": "yes", "moves against": "against", "a hint": "a hint", "no ": "no"}


def printable(text: str) -> str:
    """Names come from a file: control characters and marks of direction must not reach a screen."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def shortened(text: str, most: int = 40) -> str:
    """A printable name that fits: the middle of a long one is left out."""
    text, part = printable(text), (most - 1) // 2
    return text if len(text) <= most else f"{text[:part]}\u2026{text[-part:]}"


def figure(value: float | None, digits: int = 2) -> str:
    """A number for a table: about three digits that mean something."""
    if value is None:
        return "\u2013"
    return f"{value:.{digits}f}" if abs(value) < 1e3 else f"{value:.4g}"


def unit_of(metric: str) -> str:
    """What a metric counts; empty where that is not known here."""
    from ndt_offline.measure.metrics import METRICS

    return "dimensions" if metric in METRICS or metric.startswith("components_") else ""


def _float(value: Any) -> float:
    return float(value)
