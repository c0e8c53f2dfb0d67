"""The table on the screen: one row per layer and space, fitting 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ndt_offline.store.results import Results

HEAD = "stable_rank"  # the metric shown where the user names none


def print_table(
    console: Console, results: Results, rows: Sequence[dict[str, Any]], metric: str
) -> None:
    """Layers down, what was found across, for one metric."""
    detector = results.answer("transitions")
    about = dict(detector.attrs) if detector is not None else {}
    shown = [row for row in rows if row["metric"] == metric]
    targets = [t for t in ("loss", "grad_norm") if any(f"rho_{t}" in row for row in shown)]
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = Text(
        f"{metric}, transitions by {about.get('detector')} at {about.get('threshold')}"
    )
    table.add_column("layer", overflow="fold", min_width=8)
    table.add_column("matrix", justify="right", no_wrap=True)
    table.add_column("first \u2192 last", justify="right", no_wrap=True)
    table.add_column("transitions\n(by chance)", justify="right", no_wrap=True)
    for target in targets:
        table.add_column(f"rho {target}\n(time alone)", justify="right", no_wrap=True)
    space = None
    for row in shown:
        if row["space"] != space:
            space = row["space"]
            table.add_row(Text(space, style="italic"))
        table.add_row(
            Text(printable(f"  {row['layer']}")),
            f"{row['rows']} x {row['columns']}",
            f"{_figure(row['first'])} \u2192 {_figure(row['last'])}",
            f"{row['transitions']} ({_figure(row['expected'], 1)})",
            *(_rho(row, target) for target in targets),
        )
    console.print(table)


def printable(text: str) -> str:
    """Names come from a file: control characters and marks of direction must not reach a screen."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _rho(row: dict[str, Any], target: str) -> str:
    rho, clock = row.get(f"rho_{target}"), row.get(f"clock_{target}")
    return f"{_signed(rho)} ({_signed(clock)})"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _figure(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.3g}"
