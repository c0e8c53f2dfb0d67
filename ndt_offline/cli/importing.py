"""`ndt-offline import SOURCE... --out RUN`: checkpoints of others made into a run of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ndt_offline.record.imported import Imported

EXAMPLES = """
Examples:

\b
  ndt-offline import lightning_logs/version_0/checkpoints --out ckpts
  ndt-offline import model_*.pt --out ckpts --probe probe.safetensors --model package.module:factory
"""


@click.command("import", epilog=EXAMPLES)
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="SOURCE...")
@click.option("--out", required=True, type=click.Path(), help="The run to write.")
@click.option("--key", metavar="NAME", help="Where a file has its state dict; a.b goes deeper.")
@click.option("--probe", type=click.Path(), help="A safetensors file with x and y, kept too.")
@click.option("--model", metavar="MODULE:FACTORY", help="Makes the model: its graph is kept too.")
@click.option("--loss", default="none", show_default=True, help="As Recorder takes it.")
def command(
    sources: tuple[str, ...],
    out: str,
    key: str | None,
    probe: str | None,
    model: str | None,
    loss: str,
) -> int:
    """Write the checkpoints of SOURCE (.pt, .pth, .ckpt, .bin, safetensors, torch's distributed
    folders; files or folders of them) into the run OUT, compressed.

    Pickles are read with weights_only=True: what would run code is refused and listed. Every
    checkpoint is read back and compared. Interrupted, the same command goes on. Exit code 3 where
    something could not be imported (listed).
    """
    from ndt_offline.cli.progress import Bar
    from ndt_offline.record.imported import import_checkpoints
    from ndt_offline.record.opening import loss_name
    from ndt_offline.storage.location import local

    name = loss_name(loss, lambda what, remedy: None)
    run = local(out, "writing a run")
    with Bar(False) as bar:
        done = import_checkpoints(
            [local(source, "importing") for source in sources],
            run,
            key,
            name,
            lambda number, of: bar.told("importing", number, of),
        )
    if probe:
        _keep(run, Path(probe), model)
    return _tell(done, out)


def _keep(run: Path, probe: Path, model: str | None) -> None:
    from ndt_offline.errors import UsageError
    from ndt_offline.graph import export_graph
    from ndt_offline.graph.models import load_factory
    from ndt_offline.record.opening import keep
    from ndt_offline.report.table import printable
    from ndt_offline.run.probe import load_probe, load_second

    first = load_probe(probe) if probe.is_file() else None
    if first is None:
        raise UsageError("holds no inputs named x", path=probe)
    graph = export_graph(load_factory(model), first.inputs) if model else None
    second, why = load_second(probe)
    if why:
        click.echo(printable(f"the second probe is left out: {why}"), err=True)
    keep(run, first, second, graph)


def _tell(done: Imported, out: str) -> int:
    from ndt_offline.report.table import printable

    for problem in done.problems:
        step = "" if problem.step is None else f" (step {problem.step})"
        click.echo(printable(f"{problem.path}: {problem.what}{step}"), err=True)
        if problem.remedy:
            click.echo(printable(f"  try: {problem.remedy}"), err=True)
    kept = f", {done.kept} were there" if done.kept else ""
    sizes = f"{done.bytes / 1e6:.1f} MB -> {done.stored / 1e6:.1f} MB"
    click.echo(f"imported {len(done.steps)} checkpoints{kept}, read back and equal: {sizes}")
    click.echo(printable(f"{len(done.problems)} could not be used; now: ndt-analyze {out}"))
    return 3 if done.problems else 0
