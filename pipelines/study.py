"""What every study does: record what is not there yet, analyse it, estimate over seeds, say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from ndt_offline import analyze, open_run
from ndt_offline.errors import NdtError
from ndt_offline.report.runs import open_results
from ndt_offline.store.results import Results

Row = Sequence[str]
SETTINGS = {"help_option_names": ["-h", "--help"]}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#5d5d5d")  # of curves, in order


def out_option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--out, the folder of the study's runs and tables."""
    kind = click.Path(path_type=Path)
    return click.option("--out", default=name, show_default=True, type=kind)


def seeds_option(about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--seeds", default=3, show_default=True, help=about)


def recorded(run: Path, last: int, train: Callable[[Path], object]) -> Path:
    """The run, trained now unless its recording ends at step `last`.

    A training that was interrupted is begun again: its next attempt hides what the first one left.
    """
    if not _ends_at(run, last):
        click.echo(f"recording {run}", err=True)
        train(run)
    return run


def analysed(run: Path, **question: Any) -> Results:
    """Its analysis; what the store holds already is not computed again."""
    click.echo(f"analysing {run}", err=True)
    for problem in analyze(run, **question).problems:
        click.echo(f"{problem.path}: {problem.what}", err=True)
    return open_results(run)


def timed(what: str, seconds: float) -> float:
    """Say how long the study will take; gives the clock's time, for `took`."""
    click.echo(f"{what}: about {max(round(seconds / 60), 1)} min on 2 cores", err=True)
    return time.perf_counter()


def took(started: float) -> None:
    """Say how long it took."""
    click.echo(f"took {(time.perf_counter() - started) / 60:.1f} min", err=True)


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def share(hits: Sequence[bool]) -> str:
    """How many of how many."""
    return f"{int(np.sum(hits))}/{len(hits)}"


@contextmanager
def panels(width: float, height: float, count: int) -> Iterator[tuple[Any, Sequence[Any]]]:
    """A figure (inches) in the house's style, and its axes side by side, to be drawn in here."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ndt_offline.report.gallery import STYLE

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(1, count)


def finish(out: Path, name: str, text: str, figure: object) -> None:
    """Write OUT/name.md, .svg and .png, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text + "\n")
    for form in ("svg", "png"):
        figure.savefig(out / f"{name}.{form}", dpi=110)  # type: ignore[attr-defined]
    click.echo(text)


def _ends_at(run: Path, last: int) -> bool:
    try:
        return bool(open_run(run).steps[-1] == last)
    except (NdtError, IndexError):
        return False
