"""`ndt-offline sampling RUN`: what would have been found with fewer checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

EXAMPLE = """
Examples:

\b
  ndt-offline sampling ckpts
  ndt-offline sampling ckpts --metric effective_rank --every 5 --every 50
"""


@click.command(
    "sampling", epilog=EXAMPLE, short_help="Count jumps had RUN been recorded less often."
)
@click.argument("run", type=click.Path())
@click.option("--metric", default="stable_rank", show_default=True)
@click.option("--detector", default="steps", show_default=True)
@click.option("--every", multiple=True, type=int, metavar="N", help="Training steps; repeatable.")
@click.option("--draws", default=3, show_default=True, help="Matched-noise series per series.")
@click.option("--seed", default=0, show_default=True)
def command(
    run: str, metric: str, detector: str, every: tuple[int, ...], draws: int, seed: int
) -> int:
    """Thin the stored series of RUN to longer intervals, at every offset, and count transitions.

    The counts are stored, and the next report of ndt-analyze shows them.
    """
    from rich.console import Console
    from rich.table import Table

    from ndt_offline.detect.rates import EVERY
    from ndt_offline.errors import UsageError, nearest
    from ndt_offline.execute.lock import locked
    from ndt_offline.execute.thinning import put_rates
    from ndt_offline.report.runs import open_results
    from ndt_offline.report.tidy import rows_of
    from ndt_offline.store.schema import consolidate, forget_consolidated
    from ndt_offline.store.tables import read_table

    results = open_results(run)
    known = results.metric_names("activations") + results.metric_names("weights")
    if metric not in known:
        raise UsageError(f"--metric {metric!r} was not derived", remedy=nearest(metric, known))
    chosen, uneven = _intervals(results.steps, every or EVERY)
    with locked(results.path):
        forget_consolidated(results.path)
        group = put_rates(results, metric, detector, chosen, draws, seed)
        consolidate(results.path)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("every (steps)", "samples", "jumps", "by chance", ""):
        table.add_column(name, justify="right" if name else "left")
    for row in rows_of(read_table(group, "rates")):
        found = f"{row['found']:.1f} \u00b1 {row['spread']:.1f}"
        chance = "\u2013" if row["matched"] is None else f"{row['matched']:.1f}"
        table.add_row(str(row["every"]), f"{row['points']:.0f}", found, chance, row["remark"])
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    console.print(
        f"jumps in {metric} of all layers (detector {detector}), mean \u00b1 SD over where to start"
    )
    console.print(table)
    if uneven:
        console.print(uneven)
    console.print("a count that falls no faster than the one by chance is no sign of missed jumps")
    return 0


def _intervals(steps: Any, every: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """The intervals that the recorded steps can be thinned to, and what is uneven about them.

    UsageError where most steps are not one cadence apart, or none of the intervals fits it.
    """
    import numpy as np

    from ndt_offline.errors import UsageError

    strides = np.diff(steps)
    cadence = int(np.median(strides)) if len(strides) else 0
    off = int((strides != cadence).sum())
    if not cadence or 2 * off > len(strides):
        raise UsageError(
            f"the steps {[*map(int, steps[:6])]}... have no cadence: there is nothing to thin",
            remedy="ndt-analyze, which takes any steps",
        )
    fitting = tuple(e for e in every if e >= cadence and e % cadence == 0)
    if not fitting:
        raise UsageError(
            f"--every {', '.join(map(str, every))}: the steps are {cadence} apart",
            remedy=f"--every {cadence} --every {5 * cadence}",
        )
    told = f"{off} of {len(strides)} steps are not {cadence} apart: points are thinned by count"
    return fitting, told if off else ""
