"""`ndt-offline validate [DETECTOR]`: can a detector, or the couplings' test, be believed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ndt_offline.errors import UsageError

STARTED = 4  # kinds of series after which the time left can be told
KINDS = """
AR .9: each value keeps .9 of the one before. walk: a random walk. t5, t3: heavy
tails. GARCH: bursts. calming: the SD falls tenfold. Drifts and glitches are on
white noise unless the name says more. "< !": held against it below.
"""
FEW = 0.07  # share of independent pairs that may have p <= .05

EXAMPLE = """
Examples:

\b
  ndt-offline validate
  ndt-offline validate zscore --seeds 20
  ndt-offline validate mypackage.rules:jumps
  ndt-offline validate --figure battery.svg
  ndt-offline validate --relate

A detector of your own is a function (values, steps) that returns the indices at which new levels
begin.
"""


@click.command("validate", epilog=EXAMPLE)
@click.argument("detector", default="steps")
@click.option("--relate", "relating", is_flag=True, help="The couplings' test instead.")
@click.option(
    "--seeds", default=20, show_default=True, help="Series of each kind; 200 for firm figures."
)
@click.option("--seed", type=int, help="Repeat an earlier validation (default: fresh).")
@click.option(
    "--figure", type=click.Path(), help="Also draw one series of each kind (.svg, .png, .pdf)."
)
def command(detector: str, relating: bool, seeds: int, seed: int | None, figure: str | None) -> int:
    """Run DETECTOR (default: steps) on series of known truth: recall and false positives.

    Makes series without any step and series with planted ones, of many kinds of noise and drift,
    and counts what is reported where. Exit code 1 where it cannot be believed as it is.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}", remedy="1 or more")
    if not relating:
        return _validate(detector, seeds, seed, figure)
    if figure:
        raise UsageError("--figure draws the detectors' series", remedy="leave out --relate")
    return _validate_couplings(seeds, seed)


def _validate(detector: str, seeds: int, seed: int | None, figure: str | None) -> int:
    from ndt_offline.detect.battery.validation import validate

    draw = _drawer(figure) if figure else None
    told = _teller()
    found = validate(detector, seeds=seeds, seed=seed, progress=told)
    told("")
    nulls = [cell for cell in found.cells if cell.kind == "null"]
    click.echo(f"{detector} on series of {found.n} points, {seeds} of each kind\n")
    click.echo(
        "NOTHING TO FIND. Reports per 1000 points, all of them false, \u00b1 standard error."
    )
    click.echo(_allowances(nulls))
    rows = [(c.name, _pair(c.false, c.false_se), _flag([c])) for c in nulls]
    _print_table(("series", "false", ""), rows, columns=2)
    click.echo(
        "\nPLANTED STEPS. Share found within 10 points, by size in SD of the noise around it;"
    )
    click.echo("at 4 SD, how many points off they are placed, and false reports per 1000.")
    _print_table(*_steps_table(found.cells))
    click.echo(f"{KINDS}\n{found.verdict}")
    click.echo(f"{found.seconds:.0f} s; --seed {found.seed} repeats it; --seeds 200: firm figures")
    if draw is not None:
        draw(found.seed, detector)
        click.echo(figure)
    return 1 if found.failures else 0


def _steps_table(cells: Sequence[Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and a row per kind of planted steps; place and false reports at the size 4."""
    planted = [cell for cell in cells if cell.kind == "steps"]
    sizes = sorted({cell.sigmas for cell in planted})
    rows = []
    for name in dict.fromkeys(cell.name for cell in planted):
        own = {cell.sigmas: cell for cell in planted if cell.name == name}
        four = own[4.0]
        off = "" if four.location != four.location else f"{four.location:g}"
        shares = [_pair(own[k].recall, own[k].recall_se) for k in sizes]
        false = _pair(four.false, four.false_se)
        rows.append((name, *shares, off, false, _flag(list(own.values()))))
    heads = ("series", *(f"{k:g} SD" for k in sizes), "off by", "false", "")
    return heads, rows


def _flag(cells: Sequence[Any]) -> str:
    return "< !" if any(cell.wrong for cell in cells) else ""


def _allowances(nulls: Sequence[Any]) -> str:
    """How many false reports are let pass, kinds with the same number together."""
    usual = min(cell.allowed for cell in nulls)
    more: dict[float, list[str]] = {}
    for cell in nulls:
        if cell.allowed > usual:
            more.setdefault(cell.allowed, []).append(cell.name)
    said = [
        f"{'any number' if allowed == float('inf') else format(allowed, 'g')} in {', '.join(names)}"
        for allowed, names in more.items()
    ]
    return f"Let pass: {usual:g}; " + "; ".join(said) + "."


def _drawer(path: str) -> Callable[[int, str], None]:
    """What writes the figure; a name that cannot be written is refused before anything runs."""
    from pathlib import Path

    from ndt_offline.report.gallery import FORMATS

    if Path(path).suffix[1:] not in FORMATS:
        raise UsageError(f"--figure {path}", remedy="a name that ends in .svg, .png or .pdf")
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--figure {path}: no such folder")

    def draw(seed: int, detector: str) -> None:
        from matplotlib import rc_context

        from ndt_offline.detect.battery.examples import battery_examples
        from ndt_offline.report.battery import battery_figure
        from ndt_offline.report.gallery import STYLE

        with rc_context(STYLE):
            battery_figure(battery_examples(seed, detector), detector).savefig(path)

    return draw


def _validate_couplings(seeds: int, seed: int | None) -> int:
    from secrets import randbits

    from ndt_offline.relate.battery import relate_battery

    base = randbits(32) if seed is None else seed
    pairs = max(10, 10 * seeds)
    cells = relate_battery(pairs=pairs, seed=base)
    heads = ("", "pairs of", "p \u2264 .05", "p \u2264 .01", "q \u2264 .05")
    rows = [(c.truth, c.name, f"{c.at_5:.3f}", f"{c.at_1:.3f}", f"{c.verdict:.3f}") for c in cells]
    _print_table(heads, rows)
    null = [cell for cell in cells if cell.truth == "independent"]
    worst = max(null, key=lambda cell: cell.at_5)
    # Two standard errors above the 7 % that are let pass.
    limit = FEW + 2 * (FEW * (1 - FEW) / pairs) ** 0.5
    sound = worst.at_5 <= limit
    click.echo(
        f"couplings: {'can be believed' if sound else 'cannot be believed as they are'}. "
        f"Most false positives at 5 %: {worst.at_5:.1%} ({worst.name}).\n"
        f"seed {base}, {pairs} pairs a cell"
    )
    return 0 if sound else 1


def _pair(value: float, error: float) -> str:
    said = f"{value:.2f}\u00b1{error:.2f}".replace("\u00b10.", "\u00b1.")
    return "" if value != value else said


def _teller() -> Callable[[str], None]:
    """Says how far it is on stderr: on one line of a terminal; else, once, how long it takes."""
    import sys

    calls: list[str] = []

    def tell(what: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{what:<60}" + ("" if what else "\r"), err=True, nl=False)
            return
        calls.append(what)
        if len(calls) == STARTED:
            click.echo(what, err=True)

    return tell


def _print_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], columns: int = 1) -> None:
    """A table; `columns` of it beside one another where a row is short."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number in range(columns * len(heads)):
        head = heads[number % len(heads)]
        table.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=True)
    tall = -(-len(rows) // columns)
    empty = ("",) * len(heads)
    for number in range(tall):
        beside = [rows[k] if k < len(rows) else empty for k in range(number, columns * tall, tall)]
        table.add_row(*(text for row in beside for text in row))
    Console(highlight=False).print(table)
