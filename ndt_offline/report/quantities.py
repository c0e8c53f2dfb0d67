"""What measures returned, on the screen: one row per quantity, over its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ndt_offline.report.table import coupling_cell, figure, printable
from ndt_offline.store.results import Results

Row = dict[str, Any]


def print_quantities(console: Console, results: Results, rows: Sequence[Row]) -> None:
    """A block per measure; nothing where only spectra were measured."""
    targets = [t for t in ("loss", "grad_norm") if any(f"rho_{t}" in row for row in rows)]
    groups = list(grouped(results, rows))
    if not groups:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("measure", overflow="fold", min_width=8)
    table.add_column("layers", justify="right", no_wrap=True)
    table.add_column("first \u2192 last (median)", justify="right", no_wrap=True)
    table.add_column("jumps\n(chance)", justify="right", no_wrap=True)
    for target in targets:
        table.add_column(f"layers that move\nwith {target}", no_wrap=True)
    measure = None
    for name, space, quantity, members in groups:
        if name != measure:
            measure = name
            table.add_row(Text(printable(f"{name} ({space})"), style="italic"))
        table.add_row(
            Text(printable(f"  {quantity}")),
            str(len(members)),
            f"{figure(middle(members, 'first'), 3)} \u2192 {figure(middle(members, 'last'), 3)}",
            _jumps(members),
            *(_moving(members, target) for target in targets),
        )
    console.print()
    console.print(table)
    console.print()


def grouped(results: Results, rows: Sequence[Row]) -> Iterator[tuple[str, str, str, list[Row]]]:
    """(measure, space, quantity, its rows) of every quantity that has one, by measure."""
    places = sorted(results.quantities.items(), key=lambda item: item[1])
    for (space, quantity), (name, _) in places:
        members = [r for r in rows if r["space"] == space and r["metric"] == quantity]
        if members:
            yield name, space, quantity, members


def middle(members: Sequence[Row], key: str) -> float | None:
    """The median over layers of those that are known."""
    known = [row[key] for row in members if row[key] is not None]
    return float(median(known)) if known else None


def _jumps(members: Sequence[Row]) -> str:
    looked = [row for row in members if row["status"] in ("ok", "low power")]
    if not looked:
        return "\u2013"
    chance = sum(row["expected"] or 0.0 for row in looked)
    return f"{sum(row['transitions'] for row in looked)} ({figure(chance, 1)})"


def _moving(members: Sequence[Row], target: str) -> str:
    cells = [coupling_cell(row, target) for row in members]
    moving = sum(cell in ("yes", "against") for cell in cells)
    return f"{moving} of {len(cells)}"
