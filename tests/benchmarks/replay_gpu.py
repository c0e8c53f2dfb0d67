"""The replay on a GPU, beside the existing tool's function on the same GPU, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from ndt_offline import open_run
from ndt_offline.replay import grams
from ndt_offline.replay.batch import BatchReplayer
from ndt_offline.replay.capture import Factors
from ndt_offline.replay.device import exact_products, find_device
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.replay.spectra import singular_values
from ndt_offline.run.reader import Decoder

Layer = tuple[torch.Tensor, Factors | None]
Tool = Callable[[torch.Tensor], object]


def compare(path: Path, name: str, count: int, tool: Tool) -> dict[str, object]:
    """Seconds per checkpoint and largest differences; `name` may be `cpu`, which runs the same."""
    run = open_run(path)
    setup = prepare(run, Parameters())
    device = torch.device(find_device(name))
    several = BatchReplayer(run, setup, str(device))
    size = several.size
    decoder = Decoder(run.path, run.entries)
    first = [decoder.read(entry) for entry in run.entries[:size]]
    found = several.measure_many([*first, *[None] * (size - len(first))])  # wakes the device
    host = Replayer(run, setup)
    layers: list[Layer] = []
    values = host._values

    def keep(matrix: torch.Tensor, factors: Factors | None) -> np.ndarray:
        layers.append((matrix, factors))
        return values(matrix, factors)

    host._values = keep  # type: ignore[method-assign]
    expected = host.measure(first[0])
    done, started = 0, time.perf_counter()
    for start in range(0, min(count, len(run.entries)) - size + 1, size):
        rows = several.measure_many([decoder.read(e) for e in run.entries[start : start + size]])
        done += len(rows)
    ours = (time.perf_counter() - started) / max(done, 1)
    there = [matrix.to(device) for matrix, _ in layers]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "processor",
        "at_once": size,
        "vmap": several._together,
        "checkpoints": done,
        "ours_ms": 1e3 * ours,
        "tool_ms": 1e3 * (theirs := _tool(there, tool, device)),
        "ratio": theirs / ours,
        **_eigenvalues(there, device),
        "same_matrix": max(_same(m, t) for (m, f), t in zip(layers, there, strict=True) if not f),
        "end_to_end": max(
            float(np.nanmax(np.abs(a - b), initial=0.0) / np.nanmax(b))
            for space in expected.spectra
            for a, b in zip(found[0].spectra[space], expected.spectra[space], strict=True)
        ),
    }


def _tool(matrices: list[torch.Tensor], tool: Tool, device: torch.device) -> float:
    """Best of three, after one that does not count."""
    best = float("inf")
    for _ in range(4):
        _wait(device)
        started = time.perf_counter()
        for matrix in matrices:
            tool(matrix)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return best


def _eigenvalues(matrices: list[torch.Tensor], device: torch.device) -> dict[str, float]:
    """What the rule in `grams` decides between, on 32 Gram matrices of the largest side."""
    largest = max(matrices, key=lambda m: min(m.shape))
    stacked = grams.gram(largest).expand(32, -1, -1).contiguous()
    spent = {}
    for where, solve in {
        "solver_on_device_ms": lambda: torch.linalg.eigvalsh(stacked).cpu(),
        "solver_on_host_ms": lambda: grams.gram_values(stacked),
    }.items():
        solve()
        _wait(device)
        started = time.perf_counter()
        solve()
        spent[where] = 1e3 * (time.perf_counter() - started) / len(stacked)
    return {"side": float(stacked.shape[-1]), **spent}


def _same(matrix: torch.Tensor, there: torch.Tensor) -> float:
    """Largest relative difference of the values from 1e-4 s1 on, of one matrix on both."""
    with exact_products():
        (found,) = grams.gram_values(grams.gram(there)[None])
    expected = singular_values(matrix.numpy())
    large = expected >= 1e-4 * expected[0]
    return 0.0 if found is None else float(np.abs(found[large] / expected[large] - 1).max())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_missing(name: str) -> bool:
    """Whether there is no such device, which is then said."""
    missing = name != "cpu" and not torch.cuda.is_available()
    if missing:
        click.echo("no CUDA device: nothing to measure here (--device cpu runs the same code)")
    return missing
