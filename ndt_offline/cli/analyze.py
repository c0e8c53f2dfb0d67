"""`ndt-analyze PATH...`: everything, resumed where it stopped, recomputed only where it changed."""

from __future__ import annotations

import shlex
import sys
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from ndt_offline import __version__
from ndt_offline.cli.command import SETTINGS, run
from ndt_offline.cli.what import measures_of, parameters_of, quantities_of, what_options
from ndt_offline.cli.where import Where, where_options

if TYPE_CHECKING:
    from ndt_offline.pipeline import Result

EXAMPLES = """
Examples:

\b
  ndt-analyze ckpts
  ndt-analyze ckpts --threshold 6            other threshold: no replay
  ndt-analyze ckpts --layers 'encoder.*' --out encoder.zarr
  ndt-analyze ckpts --measures motion,units  beside the spectra: see README
  ndt-analyze ckpts --sweep threshold=4:8:0.1
  ndt-analyze ckpts --detector mypackage.rules:jumps
  ndt-analyze ckpts --fail-on 'stable_rank(layer2) < 2'
  ndt-analyze ckpts --dry-run                what it would take, in numbers
  ndt-analyze ckpts --scheduler tcp://10.0.0.1:8786
  ndt-analyze ckpts --baseline healthy       where it leaves the bands of other runs
  ndt-analyze ckpts --watch                  while it trains
  ndt-analyze ckpts --json > result.json
"""


@click.command("ndt-analyze", context_settings=SETTINGS, epilog=EXAMPLES)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=str), metavar="PATH...")
@click.option("--out", type=click.Path(), help="The store to write (default: PATH/analysis.zarr).")
@what_options
@click.option(
    "--replace",
    is_flag=True,
    help="Let other layers, shapes or centring replace what the store holds; else they are "
    "refused, and --out has both.",
)
@click.option(
    "--metrics", multiple=True, metavar="NAME", help="Metrics to derive; repeatable (default: all)."
)
@click.option(
    "--detector",
    default="steps",
    show_default=True,
    metavar="NAME",
    help="steps, segments, zscore, baseline (onsets; not --baseline), or your own as "
    "package.module:function.",
)
@click.option(
    "--threshold", type=float, help="Threshold of the detector (default: its own; 4.7 for steps)."
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Another parameter of the detector; repeatable.",
)
@click.option("--sweep", metavar="threshold=A:B:STEP", help="Count transitions at many thresholds.")
@click.option(
    "--draws",
    default=10,
    show_default=True,
    help="Series of matched noise drawn per series: the counts by chance.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of matched noise.")
@click.option(
    "--smooth", type=int, help="Also correlate after a centred mean of this many checkpoints."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Also correlate every series with this recorded scalar; repeatable.",
)
@click.option(
    "--phases",
    multiple=True,
    metavar="METRIC",
    help="Metrics to fit phases to (default: all, up to 400 series).",
)
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option(
    "--fail-on",
    multiple=True,
    metavar="RULE",
    help="Exit with code 4 where a rule is met, such as 'stable_rank(layer2) < 2'; repeatable.",
)
@click.option("--baseline", metavar="NAME", help="Healthy runs to compare with.")
@click.option(
    "--show",
    default=None,
    metavar="METRIC",
    help="The metric of the table on the screen (default: stable_rank).",
)
@where_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.version_option(__version__, "-V", "--version")
def command(paths: tuple[str, ...], as_json: bool, show: str | None, **options: Any) -> int:
    """Measure every checkpoint of a recorded run and say what happened in it.

    PATH is the directory a Recorder wrote, or a folder of checkpoints that something else wrote;
    also at a URL, such as s3://bucket/ckpts.
    Exit codes: 0 all well; 1 error; 2 usage; 3 finished, but some input could not be used;
    4 a rule of --fail-on was met.
    """
    from ndt_offline.cli.show import show_result

    options["asked"] = measures_of(options)
    check_shown(show, options["metrics"], quantities_of(options["asked"]))
    if options["out"] and len(paths) > 1:
        raise click.UsageError("--out is for a single PATH")
    where = Where.of(options)
    if where.dry_run:
        for path in paths:
            asked = question_of(options)
            parameters, measures = parameters_of(dict(options)), options["asked"]
            where.outlook(path, options["out"], parameters, asked, measures)
        return 0
    if where.watch and len(paths) > 1:
        raise click.UsageError("--watch is for a single PATH")
    code = 0
    for _ in where.rounds(paths[0]):
        results = [_analyze(path, dict(options), where, quiet=as_json) for path in paths]
        show_result(results, as_json, show)
        code = max(result.exit_code for result in results)
        if any(result.alerts for result in results):
            break  # --watch ends with the first alert: somebody waits for it
    return code


def check_shown(
    metric: str | None, derived: tuple[str, ...], quantities: tuple[str, ...] = ()
) -> None:
    """UsageError where the metric of the table is none that will be derived or measured."""
    from ndt_offline.errors import UsageError, nearest
    from ndt_offline.measure.metrics import METRICS

    known = (*(derived or METRICS), *quantities)
    if metric is not None and metric not in known:
        raise UsageError(f"--show {metric!r}: it is not derived", remedy=nearest(metric, known))


def _analyze(path: str, options: dict[str, Any], where: Where, quiet: bool) -> Result:
    from ndt_offline.cli.progress import Bar
    from ndt_offline.pipeline import analyze

    parameters = parameters_of(options)
    out, report = options.pop("out"), not options.pop("no_report")
    with Bar(quiet) as bar:
        return analyze(
            path,
            out=out,
            parameters=parameters,
            executor=where.executor(bar.say),
            device=where.device,
            progress=bar.told,
            report=report,
            command=shlex.join(["ndt-analyze", *sys.argv[1:]]),
            fail_on=options.pop("fail_on"),
            measures=options["asked"],
            baseline=options.pop("baseline"),
            replace=options.pop("replace"),
            workers=where.workers,
            **question_of(options),
        )


def question_of(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Question` from the options of the command line."""
    from ndt_offline.errors import UsageError, nearest
    from ndt_offline.execute.question import TARGETS
    from ndt_offline.measure.metrics import METRICS

    question = {key: options[key] for key in ("detector", "threshold", "draws", "seed", "smooth")}
    question["params"] = dict(_parameter(text) for text in options["params"])
    question["targets"] = tuple(dict.fromkeys((*TARGETS, *options["targets"])))
    phased = (*(options["metrics"] or METRICS), *quantities_of(options.get("asked")))
    unknown = set(options["phases"]) - set(phased)
    if unknown:
        name = unknown.pop()
        raise UsageError(f"--phases {name!r}: no such metric", remedy=nearest(name, phased))
    for key in ("metrics", "phases"):
        if options[key]:
            question[key] = tuple(options[key])
    if options["sweep"]:
        question["sweep"] = _sweep(options["sweep"])
    return question


def _parameter(text: str) -> tuple[str, float | int]:
    from ndt_offline.errors import UsageError

    name, _, number = text.partition("=")
    try:
        value = float(number)
        whole = int(value)
    except (ValueError, OverflowError):
        raise UsageError(f"--param {text!r}: expected NAME=NUMBER") from None
    return name.strip(), whole if value == whole else value


def _sweep(text: str) -> tuple[float, ...]:
    from ndt_offline.errors import UsageError

    name, _, spread = text.partition("=")
    try:
        low, high, step = (float(part) for part in spread.split(":"))
    except ValueError:
        low = high = step = 0.0
    finite = all(map(isfinite, (low, high, step))) and step > 0
    count = min((high - low) / step, 1e9) if finite else -1.0
    count = round(count) + 1
    if name != "threshold" or not 1 <= count <= 10_000:
        raise UsageError(f"--sweep {text!r}", remedy="--sweep threshold=4:8:0.1")
    return tuple(round(low + step * i, 9) for i in range(count))


def main() -> None:
    run(command)
