"""`ndt-offline pack RUN`: one file per segment, raw checkpoints coded."""

from __future__ import annotations

import click

EXAMPLES = """
Examples:

\b
  ndt-offline pack ckpts
  ndt-offline pack ckpts --small      smaller still; reading takes about twice as long
"""


@click.command("pack", epilog=EXAMPLES)
@click.argument("run", type=click.Path())
@click.option("--small", is_flag=True, help="Code everything as small as we know how.")
def command(run: str, small: bool) -> int:
    """Merge the checkpoints of RUN into one file per segment of 32, and code raw ones.

    Every new file is decoded again before an original is deleted; interrupted, the same command
    goes on. No analysis result changes. Exit code 3 where something could not be packed (listed).
    """
    from ndt_offline.record.leftovers import take_in
    from ndt_offline.report.table import printable
    from ndt_offline.run.maintain import alone
    from ndt_offline.run.packing import pack_attempt
    from ndt_offline.run.reader import open_run
    from ndt_offline.storage.location import local

    root = local(run, "changing a run")
    take_in(root)
    opened = open_run(run)
    if opened.foreign:
        raise click.UsageError(f"{run} was not recorded by ndt-offline; there is nothing to pack")
    segments = steps = before = after = failed = 0
    with alone(root):
        for attempt in opened.attempts:
            for done in pack_attempt(attempt.path, small):
                if done.problem is not None:
                    failed += 1
                    click.echo(printable(f"{done.problem.path}: {done.problem.what}"), err=True)
                    continue
                segments, steps = segments + 1, steps + len(done.steps)
                before, after = before + done.before, after + done.after
    told = f"{steps} checkpoints in {segments} files"
    click.echo(f"packed {told}: {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB")
    return 3 if failed else 0
