"""What a person or a program sees of a finished analysis."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.console import Console
from rich.text import Text

from ndt_offline.errors import UsageError, nearest
from ndt_offline.pipeline import Result
from ndt_offline.report.document import document_of
from ndt_offline.report.quantities import print_quantities
from ndt_offline.report.summary import last_signal
from ndt_offline.report.table import HEAD, baseline_sentences, print_table, printable
from ndt_offline.storage.location import locate

LISTED = 20  # problems shown on the screen; --json has them all


def show_result(results: Sequence[Result], as_json: bool, metric: str | None) -> None:
    """Print what was found: JSON on standard output, or a table and what could not be used."""
    if as_json:
        documents = [document_of(result) for result in results]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    for result in results:
        _show_one(console, result, metric)
    if len(results) > 1:
        runs = " ".join(shlex.quote(result.run) for result in results)
        console.print(Text(printable(f"        ndt-offline compare {runs}")))


def _show_one(console: Console, result: Result, metric: str | None) -> None:
    store = result.results
    for line in head_lines(result):
        console.print(Text(printable(line)))
    known = list(dict.fromkeys(row["metric"] for row in result.table))
    chosen = metric or (HEAD if HEAD in known else next(iter(known), HEAD))
    if chosen not in known and known:
        raise UsageError(f"--show {chosen!r}: it was not derived", remedy=nearest(chosen, known))
    console.print()
    print_table(console, store, result.table, chosen)
    print_quantities(console, store, result.table)
    for line in baseline_sentences(result.baseline):
        console.print(Text(printable(line)))
    for note in result.notes:
        console.print(Text(printable(f"note: {note}")))
    _show_problems(console, result)
    for alert in result.alerts:
        console.print(Text(printable(f"ALERT {alert}"), style="bold red"))
    console.print()
    if result.report is not None:
        console.print(Text(printable(f"report: {result.report}"), style="bold"))
    console.print(Text(printable(f"arrays: {result.store}")))
    other = next((name for name in known if name != chosen), chosen)
    run = shlex.quote(result.run)
    own = result.store == locate(result.run) / "analysis.zarr"
    out = "" if own else f" --out {shlex.quote(str(result.store))}"
    where = run if own else shlex.quote(str(result.store))
    console.print(
        Text(printable(f"next:   ndt-analyze {run}{out} --threshold 6   (seconds: no replay)"))
    )
    console.print(Text(printable(f"        ndt-analyze {run}{out} --show {other}")))
    console.print(Text(printable(f"        ndt-offline figures {where} --out figures")))


def head_lines(result: Result) -> Iterator[str]:
    """The run in two lines: what was read, and what became of the probe."""
    store = result.results
    steps, done = store.steps, int(store.usable.sum())
    gaps = sorted({int(b - a) for a, b in pairwise(steps.tolist())})
    every = f", every {gaps[0]}" if len(gaps) == 1 else ""
    yield f"{result.run}: {done} checkpoints, steps {steps[0]} to {steps[-1]}{every}"
    parts = []
    for name in ("loss", "accuracy"):
        values = store.signal(f"probe_{name}")
        values = values[values == values]
        if len(values):
            last = last_signal(store, f"probe_{name}")
            said = f"{last:.3f}" if last == last else "not a number"
            parts.append(f"{name} {values[0]:.3f} \u2192 {said}")
    if parts:
        yield "on the probe: " + ", ".join(parts)


def _show_problems(console: Console, result: Result) -> None:
    if not result.problems:
        return
    console.print(Text(f"could not be used: {len(result.problems)}", style="bold red"))
    causes: dict[tuple[str, str], list[int]] = {}
    for problem in result.problems:
        steps = causes.setdefault((problem.path, problem.what), [])
        steps += [] if problem.step is None else [problem.step]
    for (path, what), steps in list(causes.items())[:LISTED]:
        console.print(Text(printable(f"  {path}: {what}{_at(steps)}")))
    if len(causes) > LISTED:
        console.print(Text(f"  ... and {len(causes) - LISTED} more reasons: --json lists all"))
    for remedy in dict.fromkeys(p.remedy for p in result.problems if p.remedy):
        console.print(Text(printable(f"  try: {remedy}")))


def _at(steps: list[int]) -> str:
    if len(steps) < 2:
        return f" (step {steps[0]})" if steps else ""
    return f" ({len(steps)} steps, {min(steps)} to {max(steps)})"
