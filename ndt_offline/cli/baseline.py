"""`ndt-offline baseline`: the bands of healthy runs, kept under a name."""

from __future__ import annotations

import click

EXAMPLES = """
Examples:

\b
  ndt-offline baseline add mlp seed0 seed1 seed2 seed3
  ndt-offline baseline list
  ndt-analyze ckpts --baseline mlp
"""


@click.group("baseline", epilog=EXAMPLES)
def command() -> None:
    """Keep analysed healthy runs of one architecture; `ndt-analyze --baseline NAME` compares.

    A run with n healthy ones leaves their band by chance at a rate of at most 1 / (n + 1).
    """


@command.command("add", epilog=EXAMPLES)
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
def add(name: str, runs: tuple[str, ...]) -> int:
    """Add analysed RUNs to the baseline NAME, made where it is new."""
    from ndt_offline.errors import UsageError
    from ndt_offline.execute.baselines import (
        baseline_of,
        baseline_path,
        join,
        load_baseline,
        save_baseline,
    )
    from ndt_offline.report.runs import open_results
    from ndt_offline.report.table import printable

    parts = [load_baseline(name)] if baseline_path(name).exists() else []
    known = {run for part in parts for run in part.runs}
    for run in runs:
        results = open_results(run)
        where = str(results.path.absolute())
        if where in known:
            raise UsageError("is in the baseline already", path=run)
        known.add(where)
        parts.append(baseline_of(results, where))
    joined = join(parts)
    path = save_baseline(name, joined)
    count = len(joined.runs)
    told = f"{count} runs, {len(joined.series)} series, {len(joined.steps)} common steps"
    click.echo(printable(f"baseline {name}: {told}; false alarms at most 1 in {count + 1}; {path}"))
    return 0


@command.command("list", epilog=EXAMPLES)
def listed() -> int:
    """The baselines there are."""
    from ndt_offline.execute.baselines import known_baselines, load_baseline
    from ndt_offline.report.table import printable

    for name in known_baselines():
        found = load_baseline(name)
        click.echo(printable(f"{name}: {len(found.runs)} runs, {len(found.series)} series"))
    return 0
