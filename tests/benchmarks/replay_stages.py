"""One run's checkpoints through the stages of a replay, and the least that each stage can take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ndt_offline import open_run
from ndt_offline.graph.costs import forward_flops
from ndt_offline.heap import keep_freed
from ndt_offline.replay.capture import Factors
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.lanes import make_lanes
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.replay.tridiagonal import find_reduction
from ndt_offline.run.reader import Decoder

Spent = dict[str, list[tuple[float, float]]]  # stage -> [(CPU, wall) seconds]


@contextmanager
def timed(spent: Spent, stage: str, threads: int = 1) -> Iterator[None]:
    """CPU and wall time. One thread's own, where there is one: idle threads of OpenMP may spin."""
    clock = time.thread_time if threads == 1 else time.process_time
    cpu, wall = clock(), time.perf_counter()
    yield
    spent[stage].append((clock() - cpu, time.perf_counter() - wall))


Layer = tuple[torch.Tensor, Factors | None]


class Bench:
    """One run's checkpoints through the replay, with the matrices of each kept for the rivals."""

    def __init__(self, path: Path) -> None:
        keep_freed()  # as the processes of an analysis do
        self.run = open_run(path)
        self.setup = prepare(self.run, Parameters())
        self.decoder = Decoder(self.run.path, self.run.entries)
        self.replayer = Replayer(self.run, self.setup)
        self.lanes, self._ahead = make_lanes(), Decoder(self.run.path, self.run.entries)
        reduction = find_reduction() if self.lanes else None
        self._compiled = Replayer(self.run, self.setup, reduction=reduction)
        self.layers: list[Layer] = []

    @property
    def matrices(self) -> list[np.ndarray]:
        return [matrix.numpy() for matrix, _ in self.layers]

    def whole(self, row: int, lanes: bool = False) -> None:
        replayer, waiting = (self._compiled, self.lanes) if lanes else (self.replayer, None)
        replayer.measure(self.decoder.read(self.run.entries[row]), None, waiting)

    def together(self, row: int, spent: Spent) -> None:
        """As `whole`, the layers of 16 checkpoints solved in lanes, which one of them pays for."""
        self._ahead.read(self.run.entries[row - 1])  # what it builds on, as in `whole`
        with timed(spent, "whole, in lanes"):
            self._compiled.measure(self._ahead.read(self.run.entries[row]), None, self.lanes)

    def stages(self, row: int, spent: Spent) -> None:
        """Decoding; everything but the spectra; the spectra: the parts of `whole`."""
        with timed(spent, "decode"):
            decoded = self.decoder.read(self.run.entries[row])
        self.layers = []
        real, self.replayer._values = self.replayer._values, self._keep  # type: ignore[method-assign]
        with timed(spent, "forward"):
            self.replayer.measure(decoded)
        self.replayer._values = real  # type: ignore[method-assign]
        with timed(spent, "spectra"):
            for matrix, factors in self.layers:
                real(matrix, factors)

    def _keep(
        self, matrix: torch.Tensor, factors: Factors | None, waits: bool = False
    ) -> np.ndarray:
        self.layers.append((matrix, factors))
        return np.zeros(min(matrix.shape))

    def floor(self, peaks: dict[str, float]) -> dict[str, float]:
        """Seconds of the work at the machine's peaks, on one core; nothing overlaps."""
        spectra = sum(map(_spectrum_flops, self.layers))
        state = sum(t.nbytes for t in self.run.checkpoint(self.run.steps[0]).values())
        moved = 2 * state + sum(4 * matrix.numel() for matrix, _ in self.layers)
        graph = self.replayer.graph
        return {
            "forward": forward_flops(graph) / peaks["float32"] if graph else 0.0,
            "spectra": spectra / peaks["float64"],
            "bytes": moved / peaks["bytes"],
        }


def _spectrum_flops(layer: Layer) -> float:
    """Gram matrix (half of it) and its reduction; of a layer that widens, in its inputs' space."""
    matrix, factors = layer
    (m, n), more = matrix.shape, 0
    if factors is not None:
        (m, k), n = factors.inputs.shape, len(factors.weight)
        more, m = m * k**2 + 2 * k**2 * n, k
    return more + m * n * min(m, n) + 4 / 3 * min(m, n) ** 3


def peaks(rounds: int = 5) -> dict[str, float]:
    """Operations per second of matrix products, and bytes per second of a copy: best of a few."""
    best: dict[str, float] = defaultdict(float)
    for _ in range(rounds):
        for kind in (np.float32, np.float64):
            square = np.ones((1024, 1024), kind)
            started = time.thread_time()
            _ = square @ square
            rate = 2 * 1024**3 / (time.thread_time() - started)
            best[np.dtype(kind).name] = max(best[np.dtype(kind).name], rate)
        block, into = np.ones(1 << 24), np.empty(1 << 24)
        into[:] = 0
        started = time.thread_time()
        into[:] = block
        best["bytes"] = max(best["bytes"], 2 * block.nbytes / (time.thread_time() - started))
    return dict(best)
