"""Five architectures, recorded and compared: what do the first tenth of training say of the end?

    python pipelines/architectures.py --mnist mnist.npz --out architectures --seeds 3

MLP, CNN, ResNet and ViT learn digits; a causal Transformer learns to guess characters of Python's
own documentation (`pydoc_data`). Adam, 1000 updates, recorded every 5, several seeds each. For
every run: the mean effective rank of its activations as a share of the largest that each layer
could have, at a tenth of training and at the end, and the probe's loss as a share of the first.
Then rank correlations of early values with final ones: over all runs, with a bootstrap over
architectures (their runs are no independent samples), and within architectures, with a
permutation of seeds. Writes OUT/architectures.md, .svg, .png; what is there is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import study
import torch
from article_statistics import estimate
from early import across, within
from networks import CONTEXT, DIGITS, LETTERS, Writer
from record_mnist import load_digits, mnist_option
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder
from ndt_offline.store.results import Results

PROBE, BATCH = 256, 64
EARLY = 0.1  # of training
Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Task:
    """How to make a network, its batches and its probe."""

    make: Callable[[], nn.Module]
    draw: Draw
    probe: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """One run, early and at the end: share of the possible rank, share of the first loss."""

    rank: tuple[float, float]
    loss: tuple[float, float]
    accuracy: float


def digit_tasks(mnist: Path) -> dict[str, Task]:
    digits = load_digits(mnist, pooled=False)
    probe = digits["x_test"][:PROBE], digits["y_test"][:PROBE]

    def draw(random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randint(len(digits["x_train"]), (BATCH,), generator=random)
        return digits["x_train"][rows], digits["y_train"][rows]

    return {name: Task(make, draw, probe) for name, make in DIGITS.items()}


def text_task() -> Task:
    """Characters of the documentation that ships with Python; the probe is from its last tenth."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[key] for key in sorted(topics))
    codes = torch.tensor([min(max(ord(c) - 31, 0), LETTERS - 1) for c in text])
    cut = len(codes) * 9 // 10

    def rows(part: torch.Tensor, count: int, random: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(part) - CONTEXT - 1, (count,), generator=random)
        return part[starts[:, None] + torch.arange(CONTEXT + 1)]

    def draw(random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = rows(codes[:cut], BATCH // 4, random)
        return drawn[:, :-1], drawn[:, 1:]

    held_out = rows(codes[cut:], BATCH // 2, torch.Generator().manual_seed(0))
    return Task(Writer, draw, (held_out[:, :-1], held_out[:, 1:]))


def train(run: Path, task: Task, seed: int, updates: int) -> None:
    """Adam on batches drawn by the seed, recorded every 5 steps."""
    torch.manual_seed(seed)
    model = task.make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    random = torch.Generator().manual_seed(seed)
    with Recorder(run, model, probe=task.probe) as record:
        for _ in range(updates):
            x, y = task.draw(random)
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(loss=loss)


def rank_share(run: Results) -> np.ndarray:
    """Effective rank as a share of a layer's smaller side, mean of activations: [step]."""
    layers = run.space("activations").layers
    sides = np.array([layer.components for layer in layers])
    return np.nanmean(run.metric("activations", "effective_rank") / sides, axis=1)


def outcome(run: Results) -> Outcome:
    """Medians of nine samples: around a tenth of training, and the last ones."""
    early = int(EARLY * (len(run.steps) - 1))
    loss = run.signal("probe_loss")

    def two(values: np.ndarray) -> tuple[float, float]:
        middle = values[max(early - 4, 0) : early + 5]
        return float(np.median(middle)), float(np.median(values[-9:]))

    accuracy = two(run.signal("probe_accuracy"))[1]
    return Outcome(two(rank_share(run)), two(loss / loss[0]), accuracy)


def tables(found: dict[str, list[Outcome]]) -> str:
    """Architectures, then what early values say of final ones."""
    rows = []
    for name, runs in found.items():
        cells = [*zip(*(r.rank for r in runs), strict=True)]
        cells += [*zip(*(r.loss for r in runs), strict=True), tuple(r.accuracy for r in runs)]
        rows.append([name, *(estimate(c) for c in cells)])
    first = study.markdown(
        ("network", "rank at 10 %", "at the end", "loss at 10 %", "at the end", "accuracy"), rows
    )
    rows = []
    for label, early, late in (
        ("rank at 10 % and final rank", lambda r: r.rank[0], lambda r: r.rank[1]),
        ("rank at 10 % and final loss", lambda r: r.rank[0], lambda r: r.loss[1]),
        ("loss at 10 % and final loss", lambda r: r.loss[0], lambda r: r.loss[1]),
    ):
        x = [[early(r) for r in runs] for runs in found.values()]
        y = [[late(r) for r in runs] for runs in found.values()]
        rows.append([label, across(x, y), within(x, y)])
    second = study.markdown(("", "over all runs: rho [95 %]", "between seeds: rho (p)"), rows)
    return f"{first}\n\n{second}"


def figure_of(runs: dict[str, list[Results]], found: dict[str, list[Outcome]]) -> Any:
    """Share of the possible rank, and of the first loss, over log time; one colour a network."""
    with study.panels(10.5, 3.1, 3) as (figure, (left, middle, right)):
        for colour, (name, group) in zip(study.COLOURS, runs.items(), strict=False):
            for at, run in enumerate(group):
                loss, label = run.signal("probe_loss"), name if at == 0 else None
                left.plot(run.steps + 1, rank_share(run), color=colour, linewidth=0.7, label=label)
                middle.plot(run.steps + 1, loss / loss[0], color=colour, linewidth=0.7)
            early = [o.rank[0] for o in found[name]]
            late = [o.loss[1] for o in found[name]]
            right.plot(early, late, "o", color=colour, markersize=4, label=name)
        for axes in (left, middle):
            axes.axvline(EARLY * max(r.steps[-1] for g in runs.values() for r in g) + 1,
                         color="black", linewidth=0.8, linestyle=":")  # fmt: skip
            axes.set(xscale="log", xlabel="training step + 1")
        left.set(ylabel="effective rank / possible rank", title="activations, mean of layers")
        middle.set(ylabel="probe loss / first", title="dotted: a tenth of training")
        right.set(xlabel="rank share at a tenth", ylabel="final probe loss / first")
        right.set_title("each point one run")
        right.legend(frameon=False, fontsize="small")
    return figure


@click.command(context_settings=study.SETTINGS)
@mnist_option
@study.out_option("architectures")
@study.seeds_option("Runs of each, seeds 0, 1, ...")
@click.option("--updates", default=1000, show_default=True)
@click.option("--only", multiple=True, help="Only this network; may be given again.")
def main(mnist: Path, out: Path, seeds: int, updates: int, only: tuple[str, ...]) -> None:
    """Record five architectures, analyse them, and compare early values with final ones."""
    torch.set_num_threads(1)
    tasks = {**digit_tasks(mnist), "Transformer": text_task()}
    tasks = {name: task for name, task in tasks.items() if not only or name in only}
    started = study.timed("architectures", len(tasks) * seeds * (updates * 0.035 + 12))
    last = updates // 5 * 5
    runs = {
        name: [
            study.analysed(
                study.recorded(out / f"{name}-{seed}", last, partial(_train, task, seed, updates))
            )
            for seed in range(seeds)
        ]
        for name, task in tasks.items()
    }
    found = {name: [outcome(run) for run in group] for name, group in runs.items()}
    words = f"{seeds} seeds each, {updates} updates; mean over seeds [95 % interval]\n\n"
    study.finish(out, "architectures", words + tables(found), figure_of(runs, found))
    study.took(started)


def _train(task: Task, seed: int, updates: int, run: Path) -> None:
    train(run, task, seed, updates)


if __name__ == "__main__":
    main()
