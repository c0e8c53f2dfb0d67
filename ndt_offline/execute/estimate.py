"""Estimates: the time, memory and disk of a replay, and the refusal of what cannot fit."""

from __future__ import annotations

import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from ndt_offline.errors import RefusedError
from ndt_offline.execute.plan import Plan
from ndt_offline.measure.catalogue import choose_measures
from ndt_offline.replay.footprint import LIBRARIES
from ndt_offline.replay.processors import cores
from ndt_offline.replay.setup import Setup, layers_of
from ndt_offline.replay.workspace import ELEMENTS, SHORTEST
from ndt_offline.storage.location import is_remote

COPIES = 7  # of a checkpoint: its bytes, the last three decoded, what a decoder works with, upcast
GRAMS = 6  # float64 squares of the smaller side: Gram matrix, reduction, and a layer that widens


@dataclass(frozen=True)
class Estimate:
    """rows to replay in blocks; bytes of memory per process and of disk at most; seconds per row.

    seconds: of one process, measured on the first rows; None where nothing was measured.
    """

    rows: int
    blocks: int
    memory: int
    disk: int
    seconds: float | None = None

    def total(self, workers: int = 1) -> float | None:
        """Seconds with that many processes, start included."""
        if self.seconds is None:
            return None
        return self.rows * self.seconds / max(1, min(workers, self.blocks))


def estimate(setup: Setup, plan: Plan, seconds: float | None = None) -> Estimate:
    """From shapes alone, but for the seconds per row."""
    values = [8 * len(space.layers) * space.width for space in setup.spaces]
    measures = choose_measures(tuple(plan.measures)).values()
    beside = sum(8 * len(layers_of(m, setup)) * len(m.names) for m in measures)
    weights = sum(4 * x.rows * x.columns for x in setup.spaces[1].layers)
    widest = max((x.components for space in setup.spaces for x in space.layers), default=0)
    work = 8 * (GRAMS * widest**2 + 2 * max(ELEMENTS, SHORTEST * widest))
    block = 2 * plan.length * (sum(values) + beside)
    memory = LIBRARIES + COPIES * weights + setup.passing + work + block
    memory += _of_slopes({need for m in measures for need in m.needs}, setup, weights)
    disk = plan.spectra * sum(values) + plan.todo * beside
    return Estimate(plan.todo, len(plan.blocks), memory, disk, seconds)


def _of_slopes(needs: Set[str], setup: Setup, weights: int) -> int:
    """Bytes for gradients of single samples, and for Lanczos vectors; weights: bytes of them."""
    if not needs & {"gradients", "curvature"}:
        return 0
    from ndt_offline.replay import gradients, lanczos  # they load torch

    samples = max((layer.rows for layer in setup.spaces[0].layers), default=1)
    pieces = min(gradients.MEMORY, 2 * samples * weights) if "gradients" in needs else 0
    vectors = min(lanczos.MEMORY, lanczos.ITERATIONS * weights) if "curvature" in needs else 0
    return pieces + vectors


def check_fits(need: Estimate, store: Path, memory: int | None = None) -> None:
    """Raise RefusedError, with the numbers, where memory or disk cannot hold it."""
    memory = free_memory() if memory is None else memory
    if memory and need.memory > memory:
        raise RefusedError(
            f"one process needs about {size(need.memory)} of memory, {size(memory)} are free",
            path=store,
            remedy="--layers without the largest ones, a smaller --max-side, or another machine",
        )
    if is_remote(store):
        return  # a bucket does not say how much it holds
    folder = next(p for p in (store.absolute(), *store.absolute().parents) if p.exists())
    disk = shutil.disk_usage(folder).free
    if need.disk > disk:
        raise RefusedError(
            f"{need.rows} checkpoints give up to {size(need.disk)} of spectra, "
            f"{size(disk)} are free on that disk",
            path=store,
            remedy="--out on another disk, or --layers to measure fewer",
        )


def best_workers(need: Estimate, asked: int | None = None) -> int:
    """One process per core, but no more than memory holds or there are blocks for."""
    there = cores()
    holds = max(1, free_memory() // max(need.memory, 1)) if free_memory() else there
    return asked if asked is not None else max(1, min(there, holds, need.blocks))


def free_memory() -> int:
    """Bytes that processes may still take: of the machine, or of this container. 0: unknown."""
    try:
        import psutil  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return 0
    free = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{x}" for x in ("max", "current"))
    if limit.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def size(number: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
