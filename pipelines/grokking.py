"""Grokking: does the analysis see a transition that everybody knows is there?

    python pipelines/grokking.py --out grokking --seeds 3

A small network learns addition modulo 53 from 45 % of all pairs. It knows the training pairs
after some 50 updates, the held-out ones only after about a thousand (Power et al. 2022,
"Grokking"). Recorded every 5 steps, probe of training pairs, second probe of held-out pairs. For
each series, in steps after held-out accuracy passes one half: the nearest turn (an end of a fitted
phase), and the step that parts its two levels; and in how many seeds a turn or a jump lies inside
the transition (accuracy .1 to .9), beside the share of windows of that length, anywhere after the
training pairs are known, that hold one. Writes OUT/grokking.md, .svg, .png. What is recorded and
analysed already is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import study
import torch
from around import Known, chance, found, halfway, known, nearest, running_median
from article_statistics import estimate, signed
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder
from ndt_offline.report.tidy import rows_of, tidy_table
from ndt_offline.store.results import Results

MODULUS, WIDTH, HIDDEN = 53, 64, 128
TRAINED, PROBE = 0.45, 512
METRICS = ("stable_rank", "effective_rank")
HEAD = ("series", "first → last", "nearest turn", "halfway", "turn inside the transition",
        "jump inside")  # fmt: skip
Place = tuple[str, str, str]  # space, layer, metric


class Adder(nn.Module):
    """Two numbers, embedded, through one hidden layer, to their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(MODULUS, WIDTH)
        self.hidden = nn.Linear(2 * WIDTH, HIDDEN)
        self.out = nn.Linear(HIDDEN, MODULUS)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(self.embed(pairs).flatten(1))))


def train(run: Path, seed: int, updates: int) -> None:
    """Full-batch AdamW with strong weight decay, recorded every 5 steps."""
    torch.manual_seed(seed)
    numbers = torch.arange(MODULUS)
    pairs = torch.cartesian_prod(numbers, numbers)[torch.randperm(MODULUS**2)]
    sums = pairs.sum(1) % MODULUS
    cut = int(TRAINED * len(pairs))
    model = Adder()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=1.0, betas=(0.9, 0.98))
    seen = pairs[:cut], sums[:cut]
    held_out = pairs[cut : cut + PROBE], sums[cut : cut + PROBE]
    with Recorder(
        run, model, probe=(seen[0][:PROBE], seen[1][:PROBE]), val_probe=held_out
    ) as record:
        for _ in range(updates):
            loss = F.cross_entropy(model(seen[0]), seen[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(loss=loss)


def transition(run: Results) -> Known | None:
    """The known one: held-out accuracy from .1 to .9."""
    accuracy = (run.signal("probe_accuracy"), run.signal("probe_accuracy_val"))
    return known(run.steps, *accuracy)


def places(run: Results) -> list[Place]:
    """The series that are judged."""
    return [(space.name, layer.name, metric)
            for space in run.spaces for layer in space.layers for metric in METRICS]  # fmt: skip


def ends(run: Results, table: str, column: str, place: Place, last: float) -> list[float]:
    """Steps of a series' jumps, or of the ends of its phases but the last."""
    keys = ("space", "layer", "metric")
    rows = (r for r in rows_of(tidy_table(run, table)) if tuple(r[k] for k in keys) == place)
    return [float(row[column]) for row in rows if row[column] < last]


def row_of(runs: Sequence[Results], whens: Sequence[Known], place: Place) -> list[str]:
    """One series over the seeds."""
    space, layer, metric = place
    series = [run.series(*place) for run in runs]
    pairs = list(zip(runs, whens, strict=True))
    turns = [ends(run, "phases", "end", place, when.end) for run, when in pairs]
    jumps = [ends(run, "transitions", "step", place, when.end) for run, when in pairs]
    moved = [halfway(r.steps, v, w) - w.middle for (r, w), v in zip(pairs, series, strict=True)]
    return [
        f"{space} {layer}, {metric.replace('_', ' ')}",
        f"{np.mean([v[0] for v in series]):.1f} → {np.mean([v[-1] for v in series]):.1f}",
        over_seeds([nearest(at, when) for at, when in zip(turns, whens, strict=True)]),
        over_seeds(moved),
        inside(turns, whens),
        inside(jumps, whens),
    ]


def over_seeds(values: Sequence[float]) -> str:
    """Mean and interval of steps after accuracy one half, and how many seeds have one."""
    there = [value for value in values if np.isfinite(value)]
    if not there:
        return "none"
    few = f" in {study.share(np.isfinite(values))}" if len(there) < len(values) else ""
    return signed(there, 0) + few


def inside(places: Sequence[Sequence[float]], whens: Sequence[Known]) -> str:
    """Seeds with a place inside the transition (and what chance would give)."""
    hits = [found(at, when) for at, when in zip(places, whens, strict=True)]
    expected = np.mean([chance(at, when) for at, when in zip(places, whens, strict=True)])
    return f"{study.share(hits)} ({expected:.2f})"


def text_of(runs: Sequence[Results], whens: Sequence[Known], words: str) -> str:
    names = {"memorised": "99 % of the training pairs", "low": "10 %", "middle": "50 %",
             "high": "90 % of the held-out pairs"}  # fmt: skip
    marks = [f"{name} at step {estimate([getattr(w, key) for w in whens], 0)}"
             for key, name in names.items()]  # fmt: skip
    table = study.markdown(HEAD, [row_of(runs, whens, place) for place in places(runs[0])])
    return f"{words}\n{'; '.join(marks)}\n\n{table}"


def figure_of(runs: Sequence[Results], whens: Sequence[Known]) -> Any:
    """Accuracies, and two ranks, over log time; the transition of the first seed shaded."""
    from ndt_offline.report.figures import BLUE, GREEN, ORANGE

    with study.panels(10.5, 3.1, 3) as (figure, sides):
        shown = (("activations", "hidden"), ("weights", "embed.weight"))
        for at, run in enumerate(runs):
            x = run.steps + 1
            label = (lambda text: text) if at == 0 else (lambda text: None)
            for signal, colour, text in (
                ("probe_accuracy", ORANGE, "training pairs"),
                ("probe_accuracy_val", BLUE, "held-out pairs"),
            ):
                values = running_median(run.signal(signal))
                sides[0].plot(x, values, color=colour, linewidth=0.9, label=label(text))
            for axes, place in zip(sides[1:], shown, strict=True):
                for metric, colour in zip(METRICS, (GREEN, BLUE), strict=True):
                    values = run.series(*place, metric)
                    text = metric.replace("_", " ")
                    axes.plot(x, values, color=colour, linewidth=0.7, label=label(text))
        for axes in sides:
            for when in whens:
                axes.axvspan(when.low, when.high, color="black", alpha=0.06, linewidth=0)
            axes.set(xscale="log", xlabel="training step + 1")
            axes.legend(frameon=False, fontsize="small", loc="best")
        sides[0].set(ylabel="accuracy on the probe", title="grey: held-out .1 to .9, each seed")
        sides[1].set(ylabel="dimensions", title="activations of the hidden layer")
        sides[2].set(ylabel="dimensions", title="weights of the embedding")
    return figure


@click.command(context_settings=study.SETTINGS)
@study.out_option("grokking")
@study.seeds_option("Runs to record, seeds 0, 1, ...")
@click.option("--updates", default=4000, show_default=True)
def main(out: Path, seeds: int, updates: int) -> None:
    """Record modular addition, analyse it, and say what saw the transition that is known."""
    torch.set_num_threads(1)
    started = study.timed("grokking", seeds * updates * 0.018)
    last = updates // 5 * 5
    paths = [study.recorded(out / f"seed-{s}", last, lambda run, s=s: train(run, s, updates))
             for s in range(seeds)]  # fmt: skip
    runs = [study.analysed(path) for path in paths]
    pairs = [(run, when) for run in runs if (when := transition(run)) is not None]
    words = f"{seeds} seeds, {updates} updates: {len(pairs)} of {seeds} pass 90 % of held-out pairs"
    if not pairs:
        study.finish(out, "grokking", f"{words}; nothing to judge", figure_of(runs, []))
        return
    seen, whens = zip(*pairs, strict=True)
    text = text_of(seen, whens, f"{words}; mean over seeds [95 % interval]")
    study.finish(out, "grokking", text, figure_of(runs, whens))
    study.took(started)


if __name__ == "__main__":
    main()
