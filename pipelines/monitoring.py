"""Monitoring: failures put into training, and when `ndt-analyze --watch` stops them.

    python pipelines/monitoring.py --mnist mnist.npz --out monitoring --healthy 20 --seeds 3

A small MLP learns digits (14 x 14) for 800 updates; half of the healthy runs become a baseline, the
others say how often a healthy run is called ill. From update 400 on a failure is put in: a learning
rate 30 times too high, units that die, random labels, a penalty that shrinks the hidden layer's
activations, a frozen layer. Each run is compared with bands of the healthy ones: of ranks alone, of
the training loss alone, of the probe's loss alone (every band with the same stated rate of false
alarms over the whole run), and of all that `--baseline` looks at. What a band gives afterwards is
what `--watch` gives meanwhile: the first step outside does not change as the run grows. For the
first seed of each failure `ndt-analyze --watch --baseline healthy --fail-on 'outside > 0'` runs
beside the training, and the step at which it ended is shown too. Writes OUT/monitoring.md, .svg,
.png.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import study
import torch
from around import trailing_median
from article_statistics import estimate
from failures import FAILURES, Digits, Training
from record_mnist import load_digits, mnist_option

from ndt_offline import Recorder
from ndt_offline.relate.bands import Band, fit_band, outside
from ndt_offline.report import baselines
from ndt_offline.store.results import Results

PROBE = 512
UPDATES, START = 800, 400
QUESTION: dict[str, Any] = {"metrics": baselines.METRICS, "draws": 0, "phase_draws": 0}
NAME = "healthy"
WATCHED = 20.0  # seconds that a watched training is stretched to, so that there is time to watch


def train(
    run: Path, digits: Digits, seed: int, failure: str | None, updates: int, pause: float = 0.0
) -> None:
    """Record one training; the failure acts before every update from the middle on."""
    training = Training(digits, seed)
    probe = digits["x_test"][:PROBE], digits["y_test"][:PROBE]
    with Recorder(run, training.model, probe=probe) as record:
        for update in range(updates):
            if failure is not None and update >= updates * START // UPDATES:
                FAILURES[failure](training)
            record(loss=training.update())
            time.sleep(pause)


def watched(run: Path, digits: Digits, failure: str, updates: int) -> str:
    """Train with `ndt-analyze --watch` beside it; the last step it had seen when it gave alarm."""
    run.mkdir(parents=True, exist_ok=True)
    words = ["--watch", "--baseline", NAME, "--fail-on", "outside > 0", "--draws", "0"]
    words += [word for metric in baselines.METRICS for word in ("--metrics", metric)]
    code = "from ndt_offline.cli.analyze import main; main()"
    command = [sys.executable, "-c", code, str(run), *words, "--no-report", "--json"]
    with (run / "watch.json").open("w") as told:
        child = subprocess.Popen(command, stdout=told)
        train(run, digits, 0, failure, updates, pause=WATCHED / updates)
        ended = child.wait(timeout=600)
    if ended not in (0, 4):
        raise click.ClickException(f"--watch ended with exit code {ended}: {shlex.join(command)}")
    last = (run / "watch.json").read_text().rpartition("\n{")[2]
    return str(json.loads("{" + last.removeprefix("{"))["steps"][1]) if ended == 4 else "no alarm"


def chosen(run: Results, series: Sequence[str]) -> np.ndarray:
    """Series of a run; of the training loss a trailing median, lest single batches decide."""
    rows = [baselines.values_of(run, name) for name in series]
    return np.array(
        [trailing_median(r) if n == "loss" else r for n, r in zip(series, rows, strict=True)]
    )


def views(run: Results) -> dict[str, list[str]]:
    """What may give the alarm."""
    series = baselines.series_of(run)
    return {
        "ranks": [name for name in series if "/" in name],
        "training loss": ["loss"],
        "probe loss": ["probe_loss"],
        "--baseline": series,
    }


def first_outside(band: Band, values: np.ndarray, steps: np.ndarray) -> float:
    """The first step at which any series is outside the band; NaN: none."""
    away = (np.abs(outside(band, values)) > band.critical).any(axis=0)
    return float(steps[np.argmax(away)]) if away.any() else np.nan


def alarms(runs: Sequence[Results], bands: Mapping[str, Band]) -> dict[str, list[float]]:
    """For each view the first step outside, one per run."""
    return {
        name: [first_outside(bands[name], chosen(run, series), run.steps) for run in runs]
        for name, series in views(runs[0]).items()
    }


def cell(found: Sequence[float], start: int) -> str:
    """Caught after the failure began, how many steps later; and alarms before it."""
    late = [step - start for step in found if step > start]  # its first update makes start + 1
    early = sum(step <= start for step in found)
    words = f"{len(late)}/{len(found)}"
    words += f", after {estimate(late, 0)}" if late else ""
    return words + (f"; {early} false before" if early else "")


def figure_of(
    groups: Mapping[str, Sequence[Results]], healthy: Sequence[Results], start: int
) -> Any:
    """Rank of the hidden layer and probe loss: the healthy band, each failure's first seed."""
    with study.panels(9.5, 3.3, 2) as (figure, both):
        shown = zip(
            both,
            ("activations/2/effective_rank", "probe_loss"),
            ("effective rank, hidden layer 2 (dimensions)", "probe loss (nats)"),
            strict=True,
        )
        for axes, series, label in shown:
            band = fit_band(np.array([chosen(run, [series]) for run in healthy]))
            steps = healthy[0].steps
            axes.fill_between(
                steps, band.low[0], band.high[0], color="black", alpha=0.12, linewidth=0
            )
            for colour, (name, runs) in zip(study.COLOURS, groups.items(), strict=False):
                values = chosen(runs[0], [series])[0]
                axes.plot(runs[0].steps, values, color=colour, linewidth=0.8, label=name)
            axes.axvline(start, color="black", linewidth=0.8, linestyle=":")
            axes.set_title("grey: healthy; dotted: it begins")
            axes.set(xlabel="training step", ylabel=label)
        axes.legend(frameon=False, fontsize="small")
    return figure


@click.command(context_settings=study.SETTINGS)
@mnist_option
@study.out_option("monitoring")
@click.option("--healthy", default=20, show_default=True, help="Half of them: the baseline.")
@study.seeds_option("Runs of each failure.")
@click.option("--updates", default=UPDATES, show_default=True)
@click.option("--no-watch", is_flag=True, help="Do not run --watch beside the first seeds.")
def main(mnist: Path, out: Path, healthy: int, seeds: int, updates: int, no_watch: bool) -> None:
    """Put failures into training, and say when each is caught and how often healthy runs are."""
    torch.set_num_threads(1)
    os.environ["NDT_BASELINES"] = str(out.resolve() / "baselines")
    digits, last = load_digits(mnist, pooled=True), updates // 5 * 5
    runs = healthy + seeds * len(FAILURES)
    started = study.timed("monitoring", runs * (updates * 0.011 + 4) + (not no_watch) * 5 * WATCHED)

    def run_of(name: str, seed: int, failure: str | None) -> Results:
        task = partial(train, digits=digits, seed=seed, failure=failure, updates=updates)
        return study.analysed(
            study.recorded(out / f"{name.replace(' ', '-')}-{seed}", last, task), **QUESTION
        )

    kept = [run_of("healthy", 100 + seed, None) for seed in range(healthy)]
    base, rest = kept[: healthy // 2], kept[healthy // 2 :]
    baselines.add(NAME, base)
    groups = {name: [run_of(name, s, name) for s in range(seeds)] for name in FAILURES}
    seen = views(base[0])
    bands = {
        name: fit_band(np.array([chosen(run, series) for run in base]))
        for name, series in seen.items()
    }
    start = updates * START // UPDATES
    rows = []
    for name, group in groups.items():
        row = [name, *(cell(found, start) for found in alarms(group, bands).values())]
        live = out / f"watched-{name.replace(' ', '-')}"
        rows.append(row if no_watch else [*row, _watched_once(live, digits, name, updates)])
    false = [study.share(np.isfinite(found)) for found in alarms(rest, bands).values()]
    rows.append(["healthy: false alarms", *false, *([] if no_watch else ["–"])])
    head = (
        "failure",
        *(f"by {name}" for name in seen),
        *([] if no_watch else ["--watch ended at step"]),
    )
    rate = next(iter(bands.values()))
    words = (
        f"{len(base)} healthy runs make the bands: a stated rate of {rate.rate:.2f} false alarms a "
        f"run; failures begin at step {start} of {updates}; {seeds} seeds: caught, and steps after "
        "that, mean [95 % interval]"
    )
    study.finish(
        out,
        "monitoring",
        f"{words}\n\n{study.markdown(head, rows)}",
        figure_of(groups, base, start),
    )
    study.took(started)


def _watched_once(run: Path, digits: Digits, failure: str, updates: int) -> str:
    """Not again where it was done."""
    answer = run / "watched.txt"
    if not answer.is_file():
        click.echo(f"watching {run}", err=True)
        answer.write_text(watched(run, digits, failure, updates))
    return answer.read_text()


if __name__ == "__main__":
    main()
