"""`ndt-offline compare RUN...`: several analysed runs in one table and one figure."""

from __future__ import annotations

from typing import Any

import click

Row = dict[str, Any]

EXAMPLE = """
Examples:

\b
  ndt-offline compare seed-0 seed-1 seed-2
  ndt-offline compare mlp cnn --metric effective_rank --figure compare.svg
  ndt-offline compare seed-* --json
"""


@click.command("compare", epilog=EXAMPLE)
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--metric", default="stable_rank", show_default=True, help="What is compared.")
@click.option("--figure", type=click.Path(), help="Write the figure here (.svg, .png, .pdf).")
@click.option("--share", is_flag=True, help="Steps as a share of each run's own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    runs: tuple[str, ...], metric: str, figure: str | None, share: bool, as_json: bool
) -> int:
    """Compare the analyses of RUNS (made by ndt-analyze): values, jumps, phases, events.

    With five or more runs of one experiment, coupling with the loss is tested by permuting runs.
    """
    import json

    from ndt_offline.report.compare import compare_rows, pooled_rows, spread_rows
    from ndt_offline.report.runs import open_results

    opened = [open_results(run) for run in runs]
    rows = compare_rows(opened, metric)
    spread, pooled = spread_rows(rows), pooled_rows(opened, metric)
    if as_json:
        document = {"metric": metric, "rows": rows, "over_runs": spread, "pooled": pooled}
        click.echo(json.dumps(document, indent=1, default=str))
    else:
        _show(metric, rows, spread, pooled)
    if figure:
        _draw(opened, metric, share, figure)
        click.echo(figure, err=as_json)
    return 0


def _draw(opened: list[Any], metric: str, share: bool, path: str) -> None:
    from pathlib import Path

    from matplotlib import rc_context

    from ndt_offline.errors import UsageError
    from ndt_offline.report.compare import compare_figure
    from ndt_offline.report.gallery import FORMATS, STYLE

    if Path(path).suffix[1:] not in FORMATS:
        raise UsageError(f"--figure {path}", remedy="a name that ends in .svg, .png or .pdf")
    with rc_context(STYLE):
        compare_figure(opened, metric, share).savefig(path)


def _show(metric: str, rows: list[Row], spread: list[Row], pooled: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ndt_offline.report.table import figure, jumps_cell, phases_cell, printable

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in (metric, "run", "first \u2192 last", "jumps (chance)", "phases (to step)"):
        table.add_column(head, overflow="fold", justify="right" if head[0] in "fj" else "left")
    previous = None
    for row in sorted(rows, key=lambda row: (row["space"], row["layer"])):
        place = f"{row['space']} {row['layer']}"
        table.add_row(
            Text(printable(place) if place != previous else ""),
            Text(printable(row["run"])),
            f"{figure(row['first'])} \u2192 {figure(row['last'])}",
            jumps_cell(row),
            phases_cell(row["phases"], row),
        )
        previous = place
    console.print(table)
    for row in {row["run"]: row for row in rows}.values():
        accuracy = figure(row["probe_accuracy"], 3)
        many = f"{row['events']} event{'' if row['events'] == 1 else 's'}"
        said = f"{row['run']}: {many}, probe loss {figure(row['probe_loss'], 3)}"
        console.print(Text(printable(f"{said}, accuracy {accuracy}")))
    for row in spread:
        said = f"{row['last_sd']:.2g}" if row["last_sd"] is not None else "\u2013"
        words = f"{row['space']} {row['layer']}: last {figure(row['last'])} \u00b1 {said}"
        console.print(Text(printable(f"{words} (mean \u00b1 SD over {row['runs']} runs)")))
    for row in pooled:
        words = f"{row['space']} {row['layer']} with {row['target']}: rho {row['rho']:+.2f}"
        words += f", beyond what all runs share {row['rho_beyond']:+.2f} (p {row['p']:.2g})"
        console.print(Text(printable(words)))
