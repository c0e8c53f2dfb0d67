"""`ndt-offline inspect RUN`: what a run holds and what an analysis of it would measure."""

from __future__ import annotations

import click

EXAMPLE = """
Example:

\b
  ndt-offline inspect ckpts
"""


@click.command("inspect", epilog=EXAMPLE)
@click.argument("run", type=click.Path())
def command(run: str) -> int:
    """Describe RUN: checkpoints, attempts, probe, and the layers that would be measured."""
    from ndt_offline.replay.setup import Parameters, prepare
    from ndt_offline.run.reader import open_run

    opened = open_run(run)
    steps = opened.steps
    click.echo(f"{run}: {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}")
    stored = sum(entry.size or 0 for entry in opened.entries)
    click.echo(
        f"stored: {stored / 1e6:.2f} MB; attempts: {len(opened.attempts)}; hidden: {opened.hidden}"
    )
    setup = prepare(opened, Parameters())
    for space in setup.spaces:
        for layer in space.layers:
            click.echo(
                f"  {space.name:<12} {layer.name} [{layer.rows} x {layer.columns}] {layer.kind}"
            )
    for name, reason in setup.skipped:
        click.echo(f"  skipped      {name}: {reason}")
    for note in setup.notes:
        click.echo(f"note: {note}")
    for problem in (*opened.problems, *setup.problems):
        click.echo(f"problem: {problem.path}: {problem.what}", err=True)
    return 0
