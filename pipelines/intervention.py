"""Interventions: does corrupting the data for a while leave a mark, and does it matter when?

    python pipelines/intervention.py --mnist mnist.npz --out intervention --seeds 3

A small MLP learns digits (14 x 14) with labels shuffled, or images blurred, in one window of 250
updates; afterwards it trains on clean data for 1000 more. Its twin has the same seed and sees the
same batches in the same order, clean. They are compared at the same step, after the same
recovery, and at the same number of clean updates: accuracy on all test images, overall and of the
digit that suffered most (the least of ten, so below zero by chance too), and the effective rank of
the activations. A window that does lasting harm early and none later is a critical
period (Achille, Rovere and Soatto 2019). Intervals are over seeds, each paired with its twin.
Writes OUT/intervention.md, .svg, .png; what is recorded and analysed already is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import study
import torch
from article_statistics import signed
from early import within
from record_mnist import load_digits, make_model, mnist_option
from torch.nn import functional as F

from ndt_offline import Recorder, open_run
from ndt_offline.store.results import Results

SIZES, BATCH, PROBE = [196, 64, 32, 10], 64, 1000
STARTS, LENGTH, RECOVERY = (0, 125, 250, 500, 1000), 250, 1000
# Only final values are asked for: no matched noise, no phases.
QUESTION: dict[str, Any] = {"metrics": ("effective_rank",), "draws": 0, "phase_draws": 0}
Digits = Mapping[str, torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]


def shuffled(batch: Batch, random: torch.Generator) -> Batch:
    """Labels of the batch in another order."""
    images, labels = batch
    return images, labels[torch.randperm(len(labels), generator=random)]


def blurred(batch: Batch, random: torch.Generator) -> Batch:
    """Images averaged over 5 x 5 pixels."""
    images, labels = batch
    square = F.pad(images.view(-1, 1, 14, 14), (2, 2, 2, 2), mode="replicate")
    return F.avg_pool2d(square, 5, stride=1).flatten(1), labels


KINDS: dict[str, Callable[[Batch, torch.Generator], Batch]] = {
    "labels shuffled": shuffled, "images blurred": blurred,
}  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """A run minus its twin at the same step: shares, and effective ranks.

    clean: accuracy minus the twin's after as many clean updates.
    """

    accuracy: float
    clean: float
    worst: float
    digit: int
    rank: float


def train(run: Path, digits: Digits, seed: int, kind: str | None, start: int, updates: int) -> None:
    """Adam; batches depend on the seed alone, corruption draws from a generator of its own."""
    torch.manual_seed(seed)
    model = make_model(SIZES)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    order, noise = (torch.Generator().manual_seed(s) for s in (seed, seed + 1000))
    probe = digits["x_test"][:PROBE], digits["y_test"][:PROBE]
    with Recorder(run, model, probe=probe, every=25) as record:
        for update in range(updates):
            rows = torch.randint(len(digits["x_train"]), (BATCH,), generator=order)
            batch = digits["x_train"][rows], digits["y_train"][rows]
            if kind is not None and start <= update < start + LENGTH:
                batch = KINDS[kind](batch, noise)
            loss = F.cross_entropy(model(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(loss=loss)


def by_digit(run: Path, digits: Digits, step: int) -> np.ndarray:
    """Accuracy on each digit of the test images at a recorded step: [10]."""
    model = make_model(SIZES)
    model.load_state_dict(open_run(run).checkpoint(step))
    with torch.no_grad():
        right = (model(digits["x_test"]).argmax(1) == digits["y_test"]).double()
    return np.array([right[digits["y_test"] == d].mean() for d in range(10)])


def effect(run: Results, twin: Results, digits: Digits, step: int) -> Effect:
    """What the window left at that step."""
    here, there, earlier = (
        by_digit(r.path.parent, digits, s)
        for r, s in ((run, step), (twin, step), (twin, step - LENGTH))
    )
    change = here - there
    ranks = []
    for results in (run, twin):
        at = int(np.searchsorted(results.steps, step))
        ranks.append(float(np.nanmean(results.metric("activations", "effective_rank")[at])))
    digit = int(change.argmin())
    clean = float((here - earlier).mean())
    return Effect(float(change.mean()), clean, float(change.min()), digit, ranks[0] - ranks[1])


def table_of(found: Mapping[tuple[str, int], Sequence[Effect]]) -> str:
    """One row a window; then whether the effect goes with the window's start."""
    rows = []
    for (kind, start), effects in found.items():
        which = ", ".join(str(e.digit) for e in effects)
        worst = signed([100 * e.worst for e in effects], 1)
        rows.append([
            kind, f"{start} to {start + LENGTH}", signed([100 * e.accuracy for e in effects], 2),
            signed([100 * e.clean for e in effects], 2), f"{worst} ({which})",
            signed([e.rank for e in effects], 2),
        ])  # fmt: skip
    head = ("corruption", "in updates", "accuracy, points", "at as many clean updates",
            "worst digit, points (which)", "effective rank")  # fmt: skip
    lines = [study.markdown(head, rows), ""]
    for kind in dict.fromkeys(kind for kind, _ in found):
        groups = [[found[k][seed] for k in found if k[0] == kind]
                  for seed in range(len(next(iter(found.values()))))]  # fmt: skip
        starts = [[float(start) for k, start in found if k == kind]] * len(groups)
        for name, of in (("accuracy", lambda e: e.accuracy), ("effective rank", lambda e: e.rank)):
            told = within(starts, [[of(e) for e in group] for group in groups])
            lines.append(f"* {kind}: later windows and {name}, rho within seeds (p): {told}")
    return "\n".join(lines)


def figure_of(found: Mapping[tuple[str, int], Sequence[Effect]]) -> Any:
    """Both effects over the window's start, a point a seed, a line through the means."""
    from ndt_offline.report.figures import BLUE, ORANGE

    sides: tuple[tuple[str, Callable[[Effect], float]], ...] = (
        ("accuracy, run minus twin (points)", lambda e: 100 * e.accuracy),
        ("effective rank, run minus twin", lambda e: e.rank),
    )
    with study.panels(8.5, 3.1, 2) as (figure, both):
        for axes, (label, of) in zip(both, sides, strict=True):
            for kind, colour, marker in zip(KINDS, (BLUE, ORANGE), "os", strict=True):
                starts = [start for k, start in found if k == kind]
                values = np.array([[of(e) for e in found[kind, start]] for start in starts])
                axes.plot(starts, values, marker, color=colour, markersize=3, alpha=0.6)
                axes.plot(starts, values.mean(1), "-", color=colour, label=kind)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set(xlabel=f"start of the window of {LENGTH} updates", ylabel=label)
            axes.legend(frameon=False, fontsize="small")
    return figure


@click.command(context_settings=study.SETTINGS)
@mnist_option
@study.out_option("intervention")
@study.seeds_option("Runs of each, seeds 0, 1, ...")
@click.option("--starts", default=",".join(map(str, STARTS)), show_default=True)
@click.option("--recovery", default=RECOVERY, show_default=True, help="Clean updates afterwards.")
def main(mnist: Path, out: Path, seeds: int, starts: str, recovery: int) -> None:
    """Corrupt training for a while, compare with untouched twins after the same recovery."""
    torch.set_num_threads(1)
    digits = load_digits(mnist, pooled=True)
    windows = [int(start) for start in starts.split(",")]
    ends = {start: start + LENGTH + recovery for start in windows}
    updates = seeds * (max(ends.values()) + len(KINDS) * sum(ends.values()))
    started = study.timed("intervention", updates * 0.005 + 3 * seeds * (1 + 2 * len(windows)))

    def run_of(seed: int, kind: str | None, start: int, last: int) -> Results:
        name = f"{kind.replace(' ', '-')}-{start}" if kind else "twin"
        task = partial(train, digits=digits, seed=seed, kind=kind, start=start, updates=last)
        return study.analysed(study.recorded(out / f"{name}-{seed}", last, task), **QUESTION)

    twins = [run_of(seed, None, 0, max(ends.values())) for seed in range(seeds)]
    found = {
        (kind, start): [
            effect(run_of(seed, kind, start, last), twins[seed], digits, last)
            for seed in range(seeds)
        ]
        for kind in KINDS
        for start, last in ends.items()
    }
    words = f"{seeds} seeds; after {recovery} clean updates; run minus twin, mean [95 % interval]"
    study.finish(out, "intervention", f"{words}\n\n{table_of(found)}", figure_of(found))
    study.took(started)


if __name__ == "__main__":
    main()
