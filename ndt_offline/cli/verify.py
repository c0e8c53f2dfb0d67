"""`ndt-offline verify RUN`: every checksum checked, every checkpoint decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ndt_offline.run.attempt import Problem

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
    from ndt_offline.report.table import printable
    from ndt_offline.run.maintain import verify
    from ndt_offline.run.reader import open_run

    opened = open_run(run)
    problems = [*opened.problems, *verify(opened)]
    for line in _told(problems):
        click.echo(printable(line), err=True)
    dropped = sum(entry.path is None for entry in opened.entries)
    told = f", {dropped} dropped while recording" if dropped else ""
    click.echo(f"{len(opened.entries)} checkpoints{told}, {len(problems)} problems")
    return 3 if problems else 0


def _told(problems: list[Problem]) -> Iterator[str]:
    """A line per cause: what builds on a damaged checkpoint has that one's path and words."""
    causes: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        causes.setdefault((problem.path, problem.what), []).append(problem)
    for (path, what), (first, *later) in causes.items():
        step = "" if first.step is None else f"step {first.step}: "
        yield f"{path}: {step}{what}" + f"; {len(later)} later ones build on it" * bool(later)
