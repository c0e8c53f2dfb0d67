"""The article's verdict: record its experiment, analyse it, and put every claim beside what is.

    python pipelines/reproduce_article.py --mnist mnist.npz --out article --seeds 3

Records MNIST with the article's network once per seed (about a minute and a half each), analyses
every run, and prints each claim with what the article's definitions and ours give: holds, does
not hold, or depends on the seed. Writes OUT/verdict.md, OUT/verdict.json and OUT/verdict.svg.
What is recorded and analysed already is not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
from article_claims import Line, all_claims, jumps, noise_jumps, robust
from article_statistics import estimate, judged, rho, smoothed
from record_mnist import load_digits, make_model, mnist_option, train
from study import SETTINGS, analysed, markdown, out_option, panels, recorded, seeds_option
from torch.nn import functional as F

from ndt_offline.store.results import Results

SIZES = [784, 256, 128, 10]
HEAD = ("#", "claim", "article", "its definitions", "ours", "verdict")


def overhead(digits: dict[str, torch.Tensor], pairs: int = 8, updates: int = 100) -> Line:
    """What measuring inside the loop costs: chunks with and without, in turn."""
    ratios = []
    for pair in range(pairs + 1):
        plain = _timed(digits, updates, measuring=False, seed=pair)
        measured = _timed(digits, updates, measuring=True, seed=pair)
        ratios.append(measured / plain - 1)
    # The first pair warms up caches and is left out.
    share = [float(np.median(ratios[1:]))]
    return Line(
        "6", "measuring in the loop costs less than 10 %", "0.10", share, [], judged(share, 0, 0.1),
        f"spectra of 3 activations and 3 weights every 5 steps, median of {pairs} pairs of "
        f"{updates} updates on this machine, one thread",
    )  # fmt: skip


def _timed(digits: dict[str, torch.Tensor], updates: int, measuring: bool, seed: int) -> float:
    torch.manual_seed(seed)
    model = make_model(SIZES)
    seen: list[torch.Tensor] = []
    for module in model:
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = time.perf_counter()
    for step in range(updates):
        seen.clear()
        rows = torch.randint(len(digits["x_train"]), (64,))
        loss = F.cross_entropy(model(digits["x_train"][rows]), digits["y_train"][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if measuring and step % 5 == 0:
            weights = [p.detach() for p in model.parameters() if p.ndim == 2]
            for matrix in (*seen, *weights):
                torch.linalg.svdvals(matrix)
    return time.perf_counter() - start


def table_of(lines: Sequence[Line]) -> str:
    """The verdict as Markdown."""
    rows = []
    for line in lines:
        digits = 1 if max(map(abs, line.theirs), default=0) >= 10 else 2
        cells = (
            line.number, line.claim, line.said, estimate(line.theirs, digits),
            estimate(line.ours, digits), f"**{line.verdict}**: {line.why}",
        )  # fmt: skip
        rows.append(cells)
    return markdown(HEAD, rows)


def draw(runs: Sequence[Results], paths: Sequence[Path]) -> None:
    """Three panels: dimension over time, rho by smoothing, jumps beside chance."""
    from ndt_offline.report.figures import BLUE, GREEN, ORANGE

    with panels(10.5, 3.1, 3) as (figure, (left, middle, right)):
        layers = [layer.name for layer in runs[0].spaces[0].layers]
        for colour, layer in zip((BLUE, ORANGE, GREEN), layers, strict=False):
            for seed, run in enumerate(runs):
                values = run.series("activations", layer, "stable_rank")
                name = f"layer {layer}" if seed == 0 else None
                left.plot(run.steps + 1, values, color=colour, linewidth=0.6, label=name)
        left.set_xscale("log")
        for step in (300, 5000):
            left.axvline(step, color="black", linewidth=0.8, linestyle=":")
        left.set(xlabel="training step + 1", ylabel="stable rank (dimensions)")
        left.set_title("activations; dotted: the article's phases")
        left.legend(frameon=False, fontsize="small")
        _draw_rho(middle, runs, BLUE, ORANGE)
        _draw_jumps(right, runs, BLUE, ORANGE)
        for axes in (left,):
            ticks = [1, 10, 100, 1000, int(runs[0].steps[-1])]
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.set_xticks([], minor=True)
        for path in paths:
            figure.savefig(path, dpi=110)


def _draw_rho(axes, runs: Sequence[Results], blue: str, orange: str) -> None:  # type: ignore[no-untyped-def]
    widths = (1, 5, 10, 25, 50, 100, 150)
    for seed, run in enumerate(runs):
        loss, row = run.signal("loss"), run.series("activations", "2", "stable_rank")
        dimension = [rho(smoothed(row, w), smoothed(loss, w)) for w in widths]
        clock = [rho(np.arange(len(loss) - w + 1), smoothed(loss, w)) for w in widths]
        names = ("dimension (layer 2)", "training time alone") if seed == 0 else (None, None)
        axes.plot(widths, dimension, "o-", color=blue, markersize=3, label=names[0])
        axes.plot(widths, clock, "s--", color=orange, markersize=3, label=names[1])
    axes.axhline(-0.951, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="samples averaged", ylabel="Spearman's rho with the loss", ylim=(-1, 0))
    axes.set_title("dotted: the article's -0.951")
    axes.legend(frameon=False, fontsize="small")


def _draw_jumps(axes, runs: Sequence[Results], blue: str, orange: str) -> None:  # type: ignore[no-untyped-def]
    bars = {"z-score,\nactivations": [len(jumps(r, "activations", 3.0)) for r in runs]}
    bars["z-score,\nweights"] = [len(jumps(r, "weights", 3.0)) for r in runs]
    for space in ("activations", "weights"):
        bars[f"steps,\n{space}"] = [len(robust(r, space)[0]) for r in runs]
    noise = noise_jumps(12, len(runs[0].steps))
    matched = [np.mean([robust(r, s)[1] for r in runs]) for s in ("activations", "weights")]
    chance = [noise, noise, *matched]
    at = np.arange(len(bars))
    axes.bar(at, [np.mean(v) for v in bars.values()], 0.6, color=blue, label="found")
    for place, values in zip(at, bars.values(), strict=True):
        axes.plot([place] * len(values), values, "_", color="black", markersize=9)
    axes.plot(at, chance, "D", color=orange, label="by chance")
    axes.set_xticks(at, list(bars), fontsize="small")
    axes.set(ylabel="jumps in 12 series")
    axes.set_title("bars: mean; marks: each seed")
    axes.legend(frameon=False, fontsize="small")


@click.command(context_settings=SETTINGS)
@mnist_option
@out_option("article")
@seeds_option("Runs to record, seeds 0, 1, ...")
@click.option("--updates", default=8000, show_default=True, help="Fewer: not the article's.")
def main(mnist: Path, out: Path, seeds: int, updates: int) -> None:
    """Record the article's experiment, analyse it, and print the verdict on every claim."""
    torch.set_num_threads(1)
    digits = load_digits(mnist, pooled=False)
    last = updates // 5 * 5
    paths = [
        recorded(
            out / f"seed-{seed}", last, lambda run, s=seed: train(digits, SIZES, updates, s, run)
        )
        for seed in range(seeds)
    ]
    runs = [analysed(path) for path in paths]
    lines = all_claims(runs, lambda what: click.echo(what, err=True))
    click.echo("What measuring in the loop costs.", err=True)
    lines.append(overhead(digits))
    words = f"{seeds} seeds, {updates} updates; mean over seeds [95 % interval]\n\n"
    text = words + table_of(lines) + "\n"
    (out / "verdict.md").write_text(text)
    (out / "verdict.json").write_text(json.dumps([asdict(line) for line in lines], indent=1))
    draw(runs, [out / "verdict.svg", out / "verdict.png"])
    click.echo(text)


if __name__ == "__main__":
    main()
