"""`ndt-offline inspect RUN`: what a run holds, what would be measured, and its cost."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ndt_offline.cli.what import measures_of, parameters_of, what_options

if TYPE_CHECKING:
    from ndt_offline.execute.outlook import Outlook
    from ndt_offline.replay.setup import Setup
    from ndt_offline.run.reader import Run

EXAMPLE = """
Examples:

\b
  ndt-offline inspect ckpts
  ndt-offline inspect ckpts --layers 'encoder.*' --as 'encoder.conv*=channels'
  ndt-offline inspect ckpts --model package.module:factory --probe probe.safetensors
"""


@click.command("inspect", epilog=EXAMPLE, short_help="Describe RUN: contents, layers, cost.")
@click.argument("run", type=click.Path())
@what_options
@click.option("--no-trial", is_flag=True, help="Do not replay a few checkpoints to take the time.")
def command(run: str, no_trial: bool, **options: Any) -> int:
    """Describe RUN: checkpoints, the layers that would be measured or not and why, and the cost.

    Nothing is written. The options are those of ndt-analyze.
    """
    from ndt_offline.execute.outlook import foresee
    from ndt_offline.replay.setup import prepare
    from ndt_offline.report.table import printable
    from ndt_offline.run.reader import open_run

    opened, asked = open_run(run), measures_of(options)
    parameters = parameters_of(options)
    for line in _contents(run, opened):
        click.echo(printable(line))
    outlook = None
    if no_trial:
        setup = prepare(opened, parameters)
    else:
        nowhere = Path(tempfile.gettempdir()) / f"{uuid.uuid4().hex}.zarr"  # as if never analysed
        outlook = foresee(run, nowhere, parameters, measures=asked or ())
        setup = outlook.setup
    for line in (*_measured(setup), *_measures(setup, opened, asked), *_cost(setup, outlook)):
        click.echo(printable(line))
    for problem in (*opened.problems, *setup.problems):
        click.echo(printable(f"problem: {problem.path}: {problem.what}"), err=True)
        if problem.remedy:
            click.echo(printable(f"         try: {problem.remedy}"), err=True)
    return 0


def _contents(name: str, run: Run) -> Iterator[str]:
    from ndt_offline.run.rounding import rounding

    steps = run.steps
    yield f"{name}: {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}"
    stored = sum(entry.size or 0 for entry in run.entries)
    parts = [f"stored: {stored / 1e6:.2f} MB"]
    if not run.foreign:
        parts += [f"attempts: {len(run.attempts)}", f"hidden checkpoints: {run.hidden}"]
    yield "; ".join(parts)
    if run.scalar_names:
        yield f"journal: {', '.join(run.scalar_names)}"
    yield from rounding(run)


def _measured(setup: Setup) -> Iterator[str]:
    """A line per layer: its matrix, how its tensor is read, its part of the spectra's cost."""
    from ndt_offline.execute.prices import operations

    total = sum(operations(layer) for space in setup.spaces for layer in space.layers)
    rules = {layer.name: layer.rule for layer in setup.activations}
    for space in setup.spaces:
        heads = "matrix, operation, what its rows are, share of the cost of the spectra"
        yield f"{space.name}: {len(space.layers)} layers ({heads})"
        wide = max((len(layer.name) for layer in space.layers), default=0)
        for layer in space.layers:
            rule = rules.get(layer.name, "") if space.name == "activations" else ""
            share = 100 * operations(layer) / total
            shape = f"[{layer.rows} x {layer.columns}]"
            yield f"  {layer.name:<{wide}}  {shape:<15} {layer.kind:<10} {rule:<9} {share:3.0f} %"
    if setup.skipped:
        yield f"not measured: {len(setup.skipped)}"
        for name, reason in setup.skipped:
            yield f"  {name}: {reason}"
    for note in setup.notes:
        yield f"note: {note}"


def _measures(setup: Setup, run: Run, asked: tuple[str, ...] | None) -> Iterator[str]:
    """A line per measure, of all of ours unless some are named: its cost and what it needs."""
    from ndt_offline.execute.prices import prices
    from ndt_offline.execute.refusal import refusals
    from ndt_offline.measure.catalogue import ALL, choose_measures

    chosen = choose_measures((ALL,) if asked is None else asked)
    lines = prices(chosen, setup, refusals(chosen, setup, run))
    yield f"measures beside the spectra (--measures): {len(lines)}"
    wide = max(map(len, lines), default=0)
    for name, price in lines.items():
        yield f"  {name:<{wide}}  {price}"


def _cost(setup: Setup, outlook: Outlook | None) -> Iterator[str]:
    from ndt_offline.execute.estimate import best_workers, duration, size
    from ndt_offline.execute.prices import operations

    spectra = sum(operations(layer) for space in setup.spaces for layer in space.layers)
    yield f"operations per checkpoint: {spectra:.2g} in float64 for the spectra"
    if outlook is None:
        return
    need = outlook.need
    yield f"memory: about {size(need.memory)} per process"
    yield f"disk: at most {size(need.disk)}"
    total = need.total(workers := best_workers(need))
    if need.seconds is not None and total is not None:
        one = f"{1000 * need.seconds:.3g} ms per checkpoint, measured"
        yield f"time: about {duration(total)} for all with {workers} processes ({one})"
