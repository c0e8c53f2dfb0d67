"""How execution scales: many tiny checkpoints, two workers against one, Dask against a loop.

    python tests/benchmarks/execute.py many --rows 100000
    python tests/benchmarks/execute.py workers --rows 1500
    python tests/benchmarks/execute.py overhead --rows 1500

Times are of this machine at this moment; the ratios come from one run, CPU seconds stand beside.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
from safetensors.numpy import save
from torch import nn

from ndt_offline import Recorder, analyze, open_run
from ndt_offline.execute.cluster import local_client
from ndt_offline.execute.lock import locked
from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.execute.replay_all import Executor, in_process
from ndt_offline.execute.spread import Spread
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.setup import Parameters, prepare, setup_key
from ndt_offline.run import checkpoint, container, journal
from ndt_offline.run.identity import content, crc32c, hex8
from ndt_offline.run.reader import Decoder

DISTINCT = 64  # contents of the larger networks' checkpoints; their steps share the files


def write_run(path: Path, sizes: list[int], rows: int, distinct: int | None = None) -> Path:
    """A run as a recorder leaves it: its first checkpoint, and `rows - 1` raw ones after it.

    The weights walk at random, so that no two of the distinct checkpoints are alike.
    """
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    x, y = torch.randn(512, sizes[0]), torch.randint(0, sizes[-1], (512,))
    x, y = (x[:32], y[:32]) if distinct is None else (x, y)
    Recorder(path, model, probe=(x, y)).close()
    attempt, rng = path / "attempts" / "0001", np.random.default_rng(0)
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    lines: list[bytes] = []
    written: list[dict[str, object]] = []
    for row in range(1, rows):
        if distinct is None or row <= distinct:
            for value in state.values():
                value += 0.01 * rng.standard_normal(value.shape, dtype=np.float32)
            written.append(_write(attempt, row, save(state)))
        about = written[(row - 1) % len(written)]
        scalars = {"loss": 1 / row**0.5 + 0.01 * rng.standard_normal(), "grad_norm": rng.random()}
        lines.append(journal.line_of({"kind": "raw", "step": 5 * row, **about, **scalars}))
    with (attempt / "journal.jsonl").open("ab") as file:
        file.writelines(lines)
    return path


def _write(attempt: Path, row: int, data: bytes) -> dict[str, object]:
    name = f"checkpoints/raw_{row:012d}.safetensors"
    (attempt / name).write_bytes(data)
    layout, vectors = checkpoint.plain(container.parse(data))
    found = {"file_crc": hex8(crc32c(data)), "content": content(layout, vectors)}
    return {"file": name, "size": len(data), **found}


class Peak:
    """The resident memory of this process, sampled."""

    def __init__(self) -> None:
        self.process, self.stop = psutil.Process(), threading.Event()
        self.first = self.most = self.process.memory_info().rss
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.stop.wait(0.05):
            self.most = max(self.most, self.process.memory_info().rss)

    @property
    def growth(self) -> float:
        return (self.most - self.first) / 1e6


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Wall and CPU seconds, children included once they have ended."""

    def cpu() -> float:
        both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, both))

    found: dict[str, float] = {}
    wall, used = time.perf_counter(), cpu()
    yield found
    found["wall"], found["cpu"] = time.perf_counter() - wall, cpu() - used


def replay(run: Path, store: Path, executor: Executor) -> dict[str, float]:
    """Everything up to the spectra; seconds of planning and of the blocks."""
    with timed() as planning:
        opened = open_run(run)
        plan = make_plan(opened, store, setup_key(opened, Parameters()))
        job = make_job(prepare(opened, Parameters()), store)
    with locked(store), timed() as making:
        ready_store(job, plan)
    with timed() as blocks, closing(executor(job, plan.blocks, lambda rows: None)) as reports:
        inside = sum(report.seconds for report in reports)
    return {
        "plan": planning["wall"],
        "store": making["wall"],
        "blocks": blocks["wall"],
        "blocks_cpu": blocks["cpu"],
        "inside": inside,
    }


def loop(run: Path, rows: int) -> dict[str, float]:
    """The same work in a plain loop: decode and measure, nothing written. Seconds per row."""
    opened = open_run(run)
    decoder = Decoder(opened.path, opened.entries)
    replayer = Replayer(opened, prepare(opened, Parameters()))
    replayer.measure(decoder.read(opened.entries[0]))
    chosen = opened.entries[1 : rows + 1]
    with timed() as found:
        for entry in chosen:
            replayer.measure(decoder.read(entry))
    return {name: seconds / len(chosen) for name, seconds in found.items()}


def show(**figures: object) -> None:
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}
    click.echo(json.dumps(rounded))


@click.group()
def main() -> None:
    """Benchmarks of execution."""


@main.command()
@click.option("--rows", default=100_000)
def many(rows: int) -> None:
    """Many checkpoints of a tiny network: memory, cost per checkpoint, files, threshold rerun."""
    with tempfile.TemporaryDirectory() as folder:
        with timed() as writing:
            run = write_run(Path(folder) / "run", [12, 8, 4], rows)
        show(rows=rows, written_s=writing["wall"])
        plain, store = loop(run, min(rows - 1, 5000)), Path(folder) / "a.zarr"
        peak = Peak()
        spent = replay(run, store, in_process)
        show(**spent)
        each = {name: 1e3 * spent[name] / rows for name in ("blocks", "blocks_cpu")}
        whole = 1e3 * (spent["plan"] + spent["store"] + spent["blocks"]) / rows
        show(
            loop_ms=1e3 * plain["wall"],
            loop_cpu_ms=1e3 * plain["cpu"],
            replay_ms=whole,
            replay_cpu_ms=each["blocks_cpu"],
            overhead_cpu_ms=each["blocks_cpu"] - 1e3 * plain["cpu"],
            overhead_wall_ms=whole - 1e3 * plain["wall"],
            driver_growth_mb=peak.growth,
        )
        asked = {"detector": "zscore", "draws": 1, "report": False}
        with timed() as first:
            analyze(run, out=store, **asked)
        files = sum(len(names) for _, _, names in os.walk(store))
        show(first_answer_s=first["wall"], files=files, driver_growth_mb=peak.growth)
        (run / "attempts/0001/checkpoints").rename(run / "attempts/0001/away")
        with timed() as rerun:
            result = analyze(run, out=store, threshold=4.5, **asked)
        assert result.replayed == 0
        show(threshold_rerun_s=rerun["wall"], threshold_rerun_cpu_s=rerun["cpu"])
        size = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
        show(store_mb=size / 1e6, driver_growth_mb=peak.growth)


@main.command()
@click.option("--rows", default=1500)
@click.option("--rounds", default=2)
def workers(rows: int, rounds: int) -> None:
    """Two workers against one, cluster start not counted."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", [784, 512, 256, 10], rows, DISTINCT)
        for trial in range(rounds):
            spent = {}
            for count in (1, 2):
                with local_client(count) as client:
                    replay(_short(Path(folder)), Path(folder) / f"w{trial}{count}", Spread(client))
                    store = Path(folder) / f"{trial}{count}.zarr"
                    spent[count] = replay(run, store, Spread(client))["blocks"]
            show(one_s=spent[1], two_s=spent[2], ratio=spent[1] / spent[2])


@main.command()
@click.option("--rows", default=1500)
@click.option("--rounds", default=3)
def overhead(rows: int, rounds: int) -> None:
    """One worker of a local cluster against a plain loop and against this process, per row."""
    with tempfile.TemporaryDirectory() as folder, local_client(1) as client:
        run = write_run(Path(folder) / "run", [784, 256, 128, 10], rows, DISTINCT)
        replay(_short(Path(folder)), Path(folder) / "w.zarr", Spread(client))
        for trial in range(rounds):
            plain = loop(run, rows - 1)
            here = replay(run, Path(folder) / f"{trial}a.zarr", in_process)
            before = _used(client)
            dask = replay(run, Path(folder) / f"{trial}b.zarr", Spread(client))
            used = _used(client) - before
            each = {"loop_ms": plain["wall"], "here_ms": here["blocks"] / rows}
            each |= {"dask_ms": dask["blocks"] / rows, "task_ms": dask["inside"] / rows}
            each |= {"loop_cpu_ms": plain["cpu"], "dask_cpu_ms": used / rows}
            figures = {name: 1e3 * seconds for name, seconds in each.items()}
            show(
                **figures,
                outside_tasks=dask["blocks"] / dask["inside"] - 1,
                cpu_above_loop=used / rows / plain["cpu"] - 1,
            )


def _used(client: Any) -> float:
    """CPU seconds of workers, scheduler and driver so far."""
    mine = psutil.Process().cpu_times()
    theirs = client.run(lambda: sum(psutil.Process().cpu_times()[:2])).values()
    return mine.user + mine.system + sum(theirs)


def _short(folder: Path) -> Path:
    """A run to warm workers with: libraries are loaded before the clock runs."""
    run = folder / "short"
    return run if run.exists() else write_run(run, [12, 8, 4], 200)


if __name__ == "__main__":
    main()
