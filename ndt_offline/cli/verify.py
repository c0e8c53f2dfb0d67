"""`ndt-offline verify RUN`: every checksum checked, every checkpoint decoded."""

from __future__ import annotations

import click

EXAMPLE = """
Example:

\b
  ndt-offline verify ckpts
"""


@click.command("verify", epilog=EXAMPLE)
@click.argument("run", type=click.Path())
def command(run: str) -> int:
    """Read every checkpoint of RUN, hidden ones too, and compare it with the journal.

    Exit code 0 where all is well, 3 where something is damaged (listed).
    """
    from ndt_offline.run.maintain import verify
    from ndt_offline.run.reader import open_run

    opened = open_run(run)
    problems = [*opened.problems, *verify(opened)]
    for problem in problems:
        click.echo(f"{problem.path}: {problem.what}", err=True)
    dropped = sum(entry.path is None for entry in opened.entries)
    told = f", {dropped} dropped while recording" if dropped else ""
    click.echo(f"{len(opened.entries)} checkpoints{told}, {len(problems)} problems")
    return 3 if problems else 0
