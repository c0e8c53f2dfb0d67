"""`ndt-offline baseline`: healthy runs kept by name, for `ndt-analyze --baseline NAME`."""

from __future__ import annotations

from pathlib import Path

import click

EXAMPLES = """
Examples:

\b
  ndt-offline baseline add mnist-mlp seed-0 seed-1 seed-2
  ndt-offline baseline list
  ndt-analyze ckpts --baseline mnist-mlp --fail-on 'outside > 0'
"""


@click.group("baseline", epilog=EXAMPLES)
def command() -> None:
    """Keep healthy runs, and see where another one leaves their bands.

    They are kept in your folder for application data, or in NDT_BASELINES.
    """


@command.command("add")
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
def add(name: str, runs: tuple[str, ...]) -> int:
    """Add the analysed RUNS to baseline NAME; one that is there already is replaced."""
    from ndt_offline.relate.bands import FEWEST
    from ndt_offline.report import baselines
    from ndt_offline.report.runs import open_results
    from ndt_offline.report.table import printable

    for kept in baselines.add(name, [open_results(run) for run in runs]):
        size = f"{len(kept.series)} series at {len(kept.steps)} steps"
        click.echo(printable(f"{name}: {len(kept.runs)} runs, {size}; {_rate(len(kept.runs))}"))
        if len(kept.runs) < FEWEST:
            click.echo(f"a band needs {FEWEST} runs: add more", err=True)
    return 0


@command.command("list")
def show() -> int:
    """Every baseline with its runs."""
    from ndt_offline.report import baselines
    from ndt_offline.report.table import printable

    for name in baselines.names():
        for kept in baselines.read_all(name):
            click.echo(f"{name}: {len(kept.runs)} runs, {_rate(len(kept.runs))}")
            for run in kept.runs:
                click.echo(printable(f"  {Path(run)}"))
    if not baselines.names():
        click.echo(f"none in {baselines.home()}; ndt-offline baseline add NAME RUN...")
    return 0


@command.command("remove")
@click.argument("name")
def remove(name: str) -> int:
    """Forget baseline NAME. Its runs stay where they are."""
    from ndt_offline.report import baselines

    click.echo(f"{name}: {baselines.remove(name)} runs forgotten")
    return 0


def _rate(runs: int) -> str:
    from ndt_offline.relate.bands import FEWEST, stated_rate
    from ndt_offline.report.baselines import ALARM

    if runs < FEWEST:
        return "no band yet"
    return f"false alarms in at most {stated_rate(runs, ALARM):.0%} of healthy runs"
