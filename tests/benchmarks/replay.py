"""What a checkpoint costs from file to spectra, stage by stage, and what it could cost at best.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
    python tests/benchmarks/replay.py each mlp --run ckpts      a run of your own; lanes need numba
    python tests/benchmarks/replay.py each gpt2 --count 4       also vit, resnet18
    python tests/benchmarks/replay.py processes mlp             two processes, the whole machine
    python tests/benchmarks/replay.py memory                    1600 checkpoints
    python tests/benchmarks/replay.py gpu mlp                   on a GPU; also gpt2

Beside it the existing tool's `compute_all_metrics` (PyPI: ndtracker) on the same matrices, on one
thread and on all; torch.linalg.svdvals; and the floor: the work's operations and bytes over this
machine's measured peaks, one core. All interleaved in one run, medians; CPU time is given beside
wall time, for machines that are shared.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psutil
import torch

from ndt_offline import open_run
from ndt_offline.execute.lock import locked
from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.heap import keep_freed
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.lanes import ROWS
from ndt_offline.replay.setup import Parameters, prepare, setup_key
from tests.benchmarks.replay_gpu import compare, is_missing
from tests.benchmarks.replay_models import MODELS, record
from tests.benchmarks.replay_stages import Bench, Spent, peaks, timed

try:
    from ndt.core.estimators import compute_all_metrics
except ImportError:
    # Stands in: what the tool's documentation says it computes.
    def compute_all_metrics(matrix: torch.Tensor) -> tuple[float, ...]:
        values = torch.linalg.svd(matrix, full_matrices=False)[1]
        energy, total = values**2, values.sum()
        ninety = torch.searchsorted(energy.cumsum(0) / energy.sum(), 0.9)
        norm = torch.norm(matrix, p="fro")
        figures = (norm**2 / energy[0], total**2 / energy.sum(), ninety + 1, total / values[0])
        return tuple(float(figure) for figure in figures)


def rivals(bench: Bench, spent: Spent, threads: int) -> None:
    """The tool and svdvals on one thread, then the tool on all of them."""
    tensors = [torch.from_numpy(m.copy()) for m in bench.matrices]
    torch.set_num_threads(1)
    with timed(spent, "svdvals"):
        for tensor in tensors:
            torch.linalg.svdvals(tensor)
    with timed(spent, "tool, one thread"):
        for tensor in tensors:
            compute_all_metrics(tensor)
    if threads == 1:
        return
    torch.set_num_threads(threads)
    torch.linalg.svdvals(tensors[0])  # wakes the threads
    with timed(spent, "tool, all threads", threads):
        for tensor in tensors:
            compute_all_metrics(tensor)
    torch.set_num_threads(1)


def typical(stage: str, seconds: list[float]) -> float:
    """The median; of lanes, where one checkpoint in 16 pays for the others, the mean of 16s."""
    if stage == "whole, in lanes" and len(seconds) > 2 * ROWS:
        # The first 16 pay for compiling.
        starts = range(ROWS, len(seconds) - ROWS + 1, ROWS)
        seconds = [statistics.fmean(seconds[at : at + ROWS]) for at in starts]
    return statistics.median(seconds)


def show(**figures: object) -> None:
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}
    click.echo(json.dumps(rounded))


@contextmanager
def run_of(model: str, given: str | None, checkpoints: int) -> Iterator[Path]:
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield record(Path(folder) / "run", model, checkpoints)


@click.group()
def main() -> None:
    """Benchmarks of the replay."""


@main.command()
@click.argument("model", type=click.Choice(sorted(MODELS)))
@click.option("--run", help="A recorded run of that model (default: one is made).")
@click.option("--count", default=20, help="Checkpoints to time.")
@click.option("--threads", default=0, help="Of the tool's second time (default: all; 1: none).")
def each(model: str, run: str | None, count: int, threads: int) -> None:
    """Milliseconds per checkpoint and stage, beside the tool and the floor."""
    spent: Spent = defaultdict(list)
    if not threads:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with run_of(model, run, 2 * count + 2) as path:
        bench = Bench(path)
        bench.whole(0)
        for row in range(1, 2 * count + 1, 2):
            with timed(spent, "whole"):
                bench.whole(row)
            bench.stages(row + 1, spent)
            if bench.lanes is not None:
                bench.together(row, spent)
            if row < 2 * count * min(1, 10 / count):  # the rivals are slow and steady
                rivals(bench, spent, threads)
        show(model=model, matrices=[list(m.shape) for m in bench.matrices])
        best = peaks()
        floor = bench.floor(best)
        if bench.lanes is not None:
            bench.lanes.settle()
    cpu = {k: typical(k, [c for c, _ in v]) for k, v in spent.items()}
    wall = {k: typical(k, [w for _, w in v]) for k, v in spent.items()}
    show(what="CPU ms", **{k: 1e3 * v for k, v in cpu.items()})
    show(what="wall ms", **{k: 1e3 * v for k, v in wall.items()})
    show(what="peaks, 1e9/s", **{k: v / 1e9 for k, v in best.items()})
    show(what="floor ms", **{k: 1e3 * v for k, v in floor.items()}, sum=1e3 * sum(floor.values()))
    tool = cpu["tool, one thread"]
    show(
        what="ratios, CPU on one thread",
        tool_over_whole=tool / cpu["whole"],
        tool_over_spectra=tool / cpu["spectra"],
        svdvals_over_spectra=cpu["svdvals"] / cpu["spectra"],
        share_of_floor=sum(floor.values()) / cpu["whole"],
    )
    if "whole, in lanes" in cpu:
        lanes = cpu["whole, in lanes"]
        show(tool_over_lanes=tool / lanes, share_of_floor_in_lanes=sum(floor.values()) / lanes)


def _loop(path: str, first: int, count: int, lanes: bool, ready: Any, done: Any) -> None:
    bench = Bench(Path(path))
    bench.whole(first, lanes)
    ready.wait()
    cpu, wall = time.thread_time(), time.perf_counter()
    for row in range(first + 1, first + count + 1):
        bench.whole(row, lanes)
    if lanes and bench.lanes is not None:
        bench.lanes.settle()
    done.put((time.thread_time() - cpu, time.perf_counter() - wall))


@main.command()
@click.argument("model", type=click.Choice(sorted(MODELS)))
@click.option("--run", help="A recorded run of that model (default: one is made).")
@click.option("--count", default=100, help="Checkpoints per process.")
@click.option("--workers", default=2)
@click.option("--lanes", is_flag=True, help="With layers of 16 checkpoints solved together.")
def processes(model: str, run: str | None, count: int, workers: int, lanes: bool) -> None:
    """The whole machine: several processes, against the tool with as many threads as cores."""
    spawn = multiprocessing.get_context("spawn")
    with run_of(model, run, workers * (count + 1)) as path:
        ready, done = spawn.Barrier(workers), spawn.Queue()
        jobs = [
            spawn.Process(
                target=_loop, args=(str(path), i * (count + 1), count, lanes, ready, done)
            )
            for i in range(workers)
        ]
        for job in jobs:
            job.start()
        ended = [done.get() for _ in jobs]
        for job in jobs:
            job.join()
        bench = Bench(path)
        spent: Spent = defaultdict(list)
        bench.stages(1, defaultdict(list))
        for _ in range(7):
            rivals(bench, spent, workers)
    wall = max(w for _, w in ended) / (workers * count)
    tool = min(statistics.median(w for _, w in spent[k]) for k in spent if k.startswith("tool"))
    busy = sum(c for c, _ in ended) / sum(w for _, w in ended)
    show(workers=workers, wall_ms=1e3 * wall, tool_at_best_ms=1e3 * tool, ratio=tool / wall)
    show(share_of_a_core_that_each_process_got=busy)


@main.command()
@click.argument("model", type=click.Choice(sorted(MODELS)), default="mlp")
@click.option("--run", help="A recorded run of that model (default: one is made).")
@click.option("--count", default=128, help="Checkpoints to time.")
@click.option("--device", default="cuda", show_default=True)
def gpu(model: str, run: str | None, count: int, device: str) -> None:
    """Several checkpoints at once on a GPU, against the tool's function on the same GPU."""
    if is_missing(device):
        return
    with run_of(model, run, count) as path:
        show(model=model, **compare(path, device, count, compute_all_metrics))


@main.command()
@click.option("--run", help="A recorded run (default: one of the MLP is made).")
@click.option("--count", default=1600, help="Checkpoints.")
def memory(run: str | None, count: int) -> None:
    """Resident memory of one process over many blocks, as an analysis runs them."""
    keep_freed()
    with run_of("mlp", run, count) as path, tempfile.TemporaryDirectory() as folder:
        opened, store = open_run(path), Path(folder) / "a.zarr"
        plan = make_plan(opened, store, setup_key(opened, Parameters()))
        job = make_job(prepare(opened, Parameters()), store)
        sizes: list[float] = []
        with locked(store):
            ready_store(job, plan)
            runner = BlockRunner(job)
            for block in plan.blocks:
                runner(block)
                sizes.append(psutil.Process().memory_info().rss / 1e6)
    show(blocks=len(sizes), checkpoints=len(plan.steps), after_first_mb=sizes[0])
    show(growth_mb=max(sizes) - sizes[0], at_the_end_mb=sizes[-1] - sizes[0])


if __name__ == "__main__":
    main()
