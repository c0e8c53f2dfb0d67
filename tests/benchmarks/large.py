"""A large model on the CPU: the time inside `record()` against a plain copy of its weights.

    python tests/benchmarks/large.py --megabytes 500

The model has GPT-2's pattern of tensors (768 wide). Interleaved, medians, on one thread: `memcpy`
of every tensor into shared memory that is there already, as the ring's is; `memcpy` of as many
bytes at once (huge pages and non-temporal stores help it: what no model's tensors allow);
`record()` with the gradient norm told, and with `record()` finding gradients to take the norm of.
Between two calls the writer is waited for, so that no checkpoint goes raw.
"""

from __future__ import annotations

import ctypes
import mmap
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from ndt_offline import Recorder

WIDE = 768


def make_model(megabytes: float) -> nn.Module:
    """An embedding and blocks of attention and MLP, as many as fill the size."""

    def block() -> list[nn.Module]:
        inner = [nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)]
        return [*inner, nn.Linear(WIDE, 4 * WIDE), nn.Linear(4 * WIDE, WIDE)]

    size = 4 * sum(p.numel() for m in block() for p in m.parameters())
    blocks = max(1, int((megabytes * 1e6 - 150e6) // size))
    left = max(WIDE, int((megabytes * 1e6 - blocks * size) // (4 * WIDE)))
    return nn.ModuleList([nn.Embedding(left, WIDE), *(m for _ in range(blocks) for m in block())])


def copies(model: nn.Module) -> dict[str, Callable[[], object]]:
    """The plain copies that `record()` is held against."""
    sources = [p.detach().numpy() for p in model.parameters()]
    size = sum(s.nbytes for s in sources)
    shared = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    shared[:] = 0
    places = np.cumsum([0, *(s.nbytes for s in sources)]) + shared.ctypes.data
    parts = [(int(p), s.ctypes.data, s.nbytes) for p, s in zip(places, sources, strict=False)]
    once = np.ones(size, np.uint8)

    def each() -> None:
        for part in parts:
            ctypes.memmove(*part)

    def whole() -> None:
        ctypes.memmove(shared.ctypes.data, once.ctypes.data, size)

    return {"memcpy of each tensor": each, "memcpy at once": whole}


@click.command()
@click.option("--megabytes", default=500.0, show_default=True)
@click.option("--rounds", default=7, show_default=True)
def main(megabytes: float, rounds: int) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = make_model(megabytes)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        recorder = Recorder(Path(folder) / "run", model, every=1)
        ways = copies(model)
        ways["record(), norm told"] = lambda: recorder(loss=1.0, grad_norm=1.0)
        ways["record(), norm taken"] = lambda: recorder(loss=1.0)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for kept in [False] + [True] * rounds:
            for name, way in ways.items():
                gradient = torch.ones_like if name.endswith("taken") else lambda p: None
                for parameter in model.parameters():
                    parameter.grad = gradient(parameter)
                started = time.perf_counter()
                way()
                if kept:
                    spent[name].append(time.perf_counter() - started)
                delivery = recorder._delivery
                while delivery and delivery._handover.ring.waiting():  # type: ignore[attr-defined]
                    time.sleep(0.05)
        summary = recorder.summary()
        recorder.close()
    plain = statistics.median(spent["memcpy of each tensor"])
    click.echo(f"{size / 1e6:.0f} MB; {summary.raw} of {summary.recorded} raw")
    for name, times in spent.items():
        middle = statistics.median(times)
        click.echo(f"{name:<24}{1e3 * middle:8.1f} ms  {middle / plain:5.2f}")


if __name__ == "__main__":
    main()
