"""`ndt-offline export RUN`: every result as CSV, JSON or NetCDF."""

from __future__ import annotations

import click

EXAMPLE = """
Examples:

\b
  ndt-offline export ckpts --format csv --out tables
  ndt-offline export ckpts --format json --table transitions
"""


@click.command(
    "export", epilog=EXAMPLE, short_help="Write the results of RUN as CSV, JSON or NetCDF."
)
@click.argument("run", type=click.Path())
@click.option(
    "--format", "form", type=click.Choice(["csv", "json", "netcdf"]), default="csv",
    show_default=True, help="netcdf is one file (needs the extra xarray).",
)  # fmt: skip
@click.option("--out", type=click.Path(), help="Folder to write (default: RUN-FORMAT).")
@click.option(
    "--table", "tables", multiple=True, metavar="NAME", help="Only this table; repeatable."
)
def command(run: str, form: str, out: str | None, tables: tuple[str, ...]) -> int:
    """Write the tables of RUN's analysis: series, signals, transitions, events, phases, ...

    CSV and JSON explain every column. In CSV, a name that a spreadsheet would take for a formula
    gets an apostrophe in front.
    """
    from pathlib import Path

    from ndt_offline.report.export import export
    from ndt_offline.report.runs import open_results, run_name

    results = open_results(run)
    folder = Path(out) if out else Path(f"{run_name(results)}-{form}")
    for path in export(results, folder, form, tables):
        click.echo(str(path))
    return 0
