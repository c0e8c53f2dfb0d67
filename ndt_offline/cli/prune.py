"""`ndt-offline prune RUN`: free the checkpoints that later attempts hide."""

from __future__ import annotations

import click

EXAMPLE = """
Example:

\b
  ndt-offline prune ckpts
"""


@click.command("prune", epilog=EXAMPLE)
@click.argument("run", type=click.Path())
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(run: str, yes: bool) -> int:
    """Delete the checkpoints of RUN that a later start of the training hides.

    What is visible stays as it is; the journals keep the losses of what goes.
    """
    from ndt_offline.run.maintain import alone
    from ndt_offline.run.pruning import find_hidden, prune
    from ndt_offline.run.reader import open_run
    from ndt_offline.storage.location import local

    opened = open_run(run)
    hidden = find_hidden(opened)
    if not hidden.entries:
        click.echo("nothing is hidden")
        return 0
    told = f"{len(hidden.entries)} hidden checkpoints, {hidden.size / 1e6:.1f} MB"
    if not yes and not click.confirm(f"delete {told}?"):
        click.echo("nothing was deleted")
        return 0
    with alone(local(run, "changing a run")):
        opened = open_run(run)  # as it is now that nobody else writes
        prune(opened, find_hidden(opened))
    click.echo(f"deleted {told}")
    return 0
