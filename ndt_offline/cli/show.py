"""What a person or a program sees of a finished analysis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ndt_offline.errors import UsageError
from ndt_offline.pipeline import Result
from ndt_offline.report.table import HEAD, print_table, printable

LISTED = 20  # problems shown on the screen; --json has them all


class Bar:
    """Progress on standard error: a bar on a terminal, nothing elsewhere."""

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True)
        hidden = quiet or not console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=hidden)
        self._task: Any = None

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def told(self, what: str, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(what, total=total or None)
        self._progress.update(self._task, description=what, completed=done, total=total or None)


def show_result(results: Sequence[Result], as_json: bool, metric: str | None) -> None:
    """Print what was found: JSON on standard output, or a table and what could not be used."""
    if as_json:
        documents = [to_json(result) for result in results]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    for result in results:
        _show_one(console, result, metric)


def to_json(result: Result) -> dict[str, Any]:
    """The whole result as plain data: stable keys, null where a number does not exist."""
    store = result.results
    transitions = store.answer("transitions")
    return {
        "run": result.run,
        "store": str(result.store),
        "checkpoints": len(store.steps),
        "usable": int(store.usable.sum()),
        "steps": [int(store.steps[0]), int(store.steps[-1])],
        "detector": dict(transitions.attrs) if transitions is not None else None,
        "series": result.table,
        "notes": result.notes,
        "problems": [asdict(problem) for problem in result.problems],
    }


def _show_one(console: Console, result: Result, metric: str | None) -> None:
    store = result.results
    steps = store.steps
    done = int(store.usable.sum())
    head = f"{result.run}: {done} checkpoints, steps {steps[0]} to {steps[-1]}"
    console.print(Text(printable(head), style="bold"))
    loss, accuracy = store.signal("probe_loss"), store.signal("probe_accuracy")
    if len(loss) and loss[0] == loss[0]:
        words = f"probe: loss {loss[0]:.3f} -> {loss[-1]:.3f}"
        words += (
            f", accuracy {accuracy[0]:.3f} -> {accuracy[-1]:.3f}"
            if accuracy[0] == accuracy[0]
            else ""
        )
        console.print(Text(words))
    known = list(dict.fromkeys(row["metric"] for row in result.table))
    chosen = metric or (HEAD if HEAD in known else next(iter(known), HEAD))
    if chosen not in known and known:
        raise UsageError(f"--show {chosen!r}: it was not derived", remedy=f"one of {known}")
    console.print()
    print_table(console, store, result.table, chosen)
    console.print()
    for note in result.notes:
        console.print(Text(printable(f"note: {note}")))
    _show_problems(console, result)
    console.print(Text(printable(f"written: {result.store}")))
    others = ", ".join(name for name in known if name != chosen)
    console.print(Text(f"next: --show METRIC ({others}); --threshold T; --json"))


def _show_problems(console: Console, result: Result) -> None:
    if not result.problems:
        return
    console.print(Text(f"could not be used: {len(result.problems)}", style="bold red"))
    for problem in result.problems[:LISTED]:
        step = f" (step {problem.step})" if problem.step is not None else ""
        console.print(Text(printable(f"  {problem.path}: {problem.what}{step}")))
    if len(result.problems) > LISTED:
        console.print(Text(f"  ... and {len(result.problems) - LISTED} more: --json lists all"))
    for remedy in dict.fromkeys(p.remedy for p in result.problems if p.remedy):
        console.print(Text(printable(f"  try: {remedy}")))
