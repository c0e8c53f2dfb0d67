"""`ndt-offline validate [DETECTOR]`: can a detector, or the couplings' test, be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

FEW = 0.07  # share of independent pairs that may have p <= .05

EXAMPLE = """
Examples:

\b
  ndt-offline validate
  ndt-offline validate zscore --seeds 20
  ndt-offline validate mypackage.rules:jumps
  ndt-offline validate --relate
"""


@click.command("validate", epilog=EXAMPLE)
@click.argument("detector", default="steps")
@click.option("--relate", "relating", is_flag=True, help="The couplings' test instead.")
@click.option("--seeds", default=20, show_default=True, help="Series per kind of noise.")
@click.option("--seed", type=int, help="Repeat an earlier validation (default: fresh).")
def command(detector: str, relating: bool, seeds: int, seed: int | None) -> int:
    """Run DETECTOR (default: steps) on series of known truth: recall and false positives.

    Exit code 1 where it cannot be believed as it is.
    """
    return _validate_couplings(seeds, seed) if relating else _validate(detector, seeds, seed)


def _validate(detector: str, seeds: int, seed: int | None) -> int:
    from ndt_offline.detect.battery.validation import validate

    told = _teller()
    found = validate(detector, seeds=seeds, seed=seed, progress=told)
    told("")
    rows = [
        (
            cell.kind, cell.name, f"{cell.sigmas:g}" if cell.sigmas else "",
            _pair(cell.false, cell.false_se), _pair(cell.recall, cell.recall_se),
            "" if cell.location != cell.location else f"{cell.location:g}",
        )
        for cell in found.cells
    ]  # fmt: skip
    heads = ("", "series", "sigma", "false per 1000", "recall", "location error")
    _print_table(heads, rows)
    click.echo(f"{found.verdict}\nseed {found.seed}, {seeds} series a cell, {found.seconds:.0f} s")
    return 1 if found.failures else 0


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
    return "" if value != value else f"{value:.2f} \u00b1 {error:.2f}"


def _teller() -> Any:
    import sys

    if not sys.stderr.isatty():
        return lambda what: None
    return lambda what: click.echo(f"\r{what:<60}", err=True, nl=False)


def _print_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
