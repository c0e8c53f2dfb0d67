"""`ndt-offline figures RUN`: every figure as a file."""

from __future__ import annotations

import click

EXAMPLE = """
Examples:

\b
  ndt-offline figures ckpts --out figures
  ndt-offline figures ckpts --out figures --format pdf --metric effective_rank
"""


@click.command("figures", epilog=EXAMPLE)
@click.argument("run", type=click.Path())
@click.option(
    "--out", default="figures", show_default=True, type=click.Path(), help="Folder to write."
)
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(["svg", "png", "pdf"]),
    help="Repeatable; default: svg and png.",
)  # fmt: skip
@click.option("--metric", default="stable_rank", show_default=True, help="What is drawn.")
def command(run: str, out: str, formats: tuple[str, ...], metric: str) -> int:
    """Draw RUN's series, spectra, couplings and sweeps into OUT."""
    from pathlib import Path

    from ndt_offline.report.gallery import save_figures
    from ndt_offline.report.runs import open_results

    written = save_figures(open_results(run), Path(out), formats or ("svg", "png"), metric)
    for path in written:
        click.echo(str(path))
    return 0
