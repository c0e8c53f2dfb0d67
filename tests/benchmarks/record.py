"""What recording costs: bytes per checkpoint, and time in the training loop.

    python tests/benchmarks/record.py --mnist mnist.npz
    python tests/benchmarks/record.py --sizes-only --updates 8000

Sizes: ratio of raw to stored bytes over windows of 32 checkpoints, 5 updates apart, early, in the
middle and late in a training. Loop: chunks of updates without and with each way of saving,
interleaved; the table gives the median over rounds of the paired slow-down, in wall time and in
CPU time of the training process. `Recorder` measures the gradient norm itself (grad_norm=None),
`Recorder, given` is told it, as by a loop that clips. Beside them: the share of checkpoints that
went raw, and the milliseconds inside `record()` per checkpoint. `wide` is an MLP whose updates take
50 ms or more. On a machine shared with others only these ratios mean anything. Tools that are not
installed are left out. --group N tries another priority of the writer's group (Linux autogroup).
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
from numcodecs import Shuffle, Zstd
from safetensors.torch import save, save_file
from torch import nn
from trainings import load, make, update

from ndt_offline import Recorder
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.run import codec, container, grid
from ndt_offline.run.layout import Layout, Vectors

SEGMENT = 32


def windows(kind: str, updates: int, data: Any) -> Iterator[tuple[str, Layout, list[Vectors]]]:
    """32 consecutive checkpoints, early, in the middle, and late."""
    model, optimizer, batch = make(kind, *data)
    starts = {"early": 0, "middle": updates // 2, "late": updates - 5 * SEGMENT}
    snapshot = Snapshot(model)
    kept: list[Vectors] = []
    for i in range(updates):
        name = next((n for n, s in starts.items() if s <= i < s + 5 * SEGMENT), None)
        if name and (i - starts[name]) % 5 == 0:
            kept.append(snapshot.take()[1])
        update(model, optimizer, batch, i)
        if name and len(kept) == SEGMENT:
            yield name, snapshot.layout, kept
            kept = []


def sizes(layout: Layout, kept: list[Vectors]) -> dict[str, tuple[float, float, float]]:
    """Ratio, encode and decode in ms of CPU per MB, for each way of coding."""
    raw = [b"".join(v.tobytes() for v in vectors.values()) for vectors in kept]
    item = 2 if "bfloat16" in layout.sizes else 4
    shuffle = Shuffle(item)
    ways: dict[str, Callable[[], list[Any]]] = {
        "zstd": lambda: [Zstd(level=3).encode(r) for r in raw],
        "shuffle+zstd": lambda: [Zstd(level=1).encode(shuffle.encode(r)) for r in raw],
        "ours": lambda: coded(layout, kept, small=False),
        "ours --small": lambda: coded(layout, kept, small=True),
        "ours q12": lambda: coded(layout, kept, small=True, digits=12),
    }
    try:
        from zipnn import ZipNN

        kind = "bfloat16" if item == 2 else "float32"
        zipnn = ZipNN(bytearray_dtype=kind)
        ways["ZipNN"] = lambda: [zipnn.compress(bytearray(r)) for r in raw]
    except ImportError:
        pass
    total = sum(map(len, raw))
    found = {}
    for name, way in ways.items():
        started = time.process_time()
        files = way()
        spent = time.process_time() - started
        read = decode_time(layout, files, name)
        found[name] = (total / sum(map(len, files)), spent * 1e9 / total, read * 1e9 / total)
    return found


def coded(
    layout: Layout, kept: list[Vectors], small: bool, digits: int | None = None
) -> list[bytes]:
    table = grid.choose(layout, kept[0], digits) if digits else None
    history: list[Vectors] = []
    files = []
    for vectors in kept:
        if table:
            vectors = grid.rounded(vectors, table, layout)
        files.append(codec.encode_vectors(layout, vectors, history, {}, table, small))
        history = [vectors, *history][:2]
    return files


def decode_time(layout: Layout, files: list[Any], name: str) -> float:
    if not name.startswith("ours"):
        return float("nan")
    started = time.process_time()
    history: list[Vectors] = []
    for data in files:
        vectors = codec.decode_vectors(container.parse(data), layout, history)
        history = [vectors, *history][:2]
    return time.process_time() - started


class Saving:
    """One way of saving a checkpoint every 5 updates."""

    def __init__(self, name: str, model: nn.Module, folder: Path, group: int | None) -> None:
        self.name, self.model, self.folder, self.steps = name, model, folder, 0
        run = folder / f"run{'_given' * ('given' in name)}"
        self.recorder = Recorder(run, model) if name.startswith("Recorder") else None
        self.given = 1.0 if "given" in name else None
        if self.recorder and group is not None:
            delivery: Any = self.recorder._delivery
            process = delivery._handover._process.pid
            Path(f"/proc/{process}/autogroup").write_text(str(group))
        self.tracker: Any = None
        if name == "ndtracker":
            from ndt import HighFrequencyTracker

            layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
            self.tracker = HighFrequencyTracker(model, layers=layers, sampling_frequency=5)

    def __call__(self, loss: torch.Tensor) -> None:
        self.steps += 1
        if self.recorder:
            self.recorder(loss=loss, grad_norm=self.given)
        elif self.tracker:
            self.tracker.log(self.steps, loss.item())
        elif not self.name.startswith("nothing") and self.steps % 5 == 0:
            self.file()

    def file(self) -> None:
        path = self.folder / f"{self.name.split()[0]}_{self.steps}"
        state = self.model.state_dict()
        if self.name == "copy only":
            self.kept = [tensor.clone() for tensor in state.values()]
        elif self.name == "torch.save":
            torch.save(state, path)
        elif self.name == "save_file":
            save_file(state, path)
        elif self.name == "zstd in the loop":
            path.write_bytes(Zstd(level=1).encode(Shuffle(4).encode(save(state))))

    def told(self) -> str:
        """What went raw, and the time inside the calls."""
        if self.recorder is None:
            return ""
        summary = self.recorder.summary()
        count = self.steps // 5
        each = 1e3 * summary.seconds / count
        return f"  {summary.raw} of {count} raw, {each:.2f} ms in each"

    def settle(self) -> None:
        """Between chunks: files go, and what the writer has in hand is finished off the clock."""
        for path in self.folder.glob("[!r]*_[0-9]*"):
            path.unlink()
        if self.recorder:
            delivery: Any = self.recorder._delivery
            while delivery._handover.ring.waiting():
                time.sleep(0.01)


def loops(
    kind: str, data: Any, chunk: int, rounds: int, group: int | None
) -> Iterator[tuple[str, float, float, str]]:
    """Median slow-down in per cent, wall and CPU time of the training process; what else."""
    model, optimizer, batch = make(kind, *data)
    names = ["copy only", "torch.save", "save_file", "zstd in the loop"]
    names = ["nothing again", *names, "Recorder", "Recorder, given"]
    try:
        import ndt  # noqa: F401

        names += ["ndtracker"] if kind == "mlp" else []
    except ImportError:
        pass
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    # The writer may still be coding raw checkpoints when the folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ways = {name: Saving(name, model, Path(folder), group) for name in names}
        nothing = Saving("nothing", model, Path(folder), None)
        timed(model, optimizer, batch, nothing, chunk)
        yield (
            "an update, ms",
            *(1e3 * t / chunk for t in timed(model, optimizer, batch, nothing, chunk)),
            "",
        )
        for _ in range(rounds):
            for name, saving in ways.items():
                without = timed(model, optimizer, batch, nothing, chunk)
                with_it = timed(model, optimizer, batch, saving, chunk)
                saving.settle()
                pair = zip(with_it, without, strict=True)
                spent[name].append(tuple(100 * (w / o - 1) for w, o in pair))  # type: ignore[arg-type]
        told = {name: saving.told() for name, saving in ways.items()}
        for saving in ways.values():
            if saving.recorder:
                saving.recorder.close()
    for name, rows in spent.items():
        wall, cpu = (statistics.median(row[i] for row in rows) for i in (0, 1))
        yield name, wall, cpu, told[name]


def timed(model: nn.Module, optimizer: Any, batch: Any, saving: Saving, chunk: int) -> tuple:
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(chunk):
        saving(update(model, optimizer, batch, i))
    return time.perf_counter() - wall, time.process_time() - cpu


@click.command()
@click.option("--mnist", type=click.Path(exists=True, path_type=Path), help="mnist.npz.")
@click.option("--updates", default=2000, show_default=True, help="Of the trainings for sizes.")
@click.option("--chunk", default=200, show_default=True, help="Updates of a timed chunk.")
@click.option("--rounds", default=5, show_default=True)
@click.option(
    "--kinds", default="mlp,cnn,transformer,wide,mlp-bf16,transformer-bf16", show_default=True
)
@click.option("--sizes-only", is_flag=True)
@click.option("--loops-only", is_flag=True)
@click.option("--threads", default="1,2", show_default=True, help="Of torch, in the loops.")
@click.option("--group", type=click.IntRange(-20, 19), help="Priority of the writer's group.")
def main(
    mnist: Path | None,
    updates: int,
    chunk: int,
    rounds: int,
    kinds: str,
    sizes_only: bool,
    loops_only: bool,
    threads: str,
    group: int | None,
) -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")
    data = load(mnist)
    torch.set_num_threads(1)
    for kind in () if loops_only else kinds.replace("wide,", "").split(","):
        for name, layout, kept in windows(kind, updates, data):
            for way, (ratio, encode, decode) in sizes(layout, kept).items():
                told = f"{kind:<17}{name:<8}{way:<14}{ratio:6.2f}"
                click.echo(f"{told}  encode {encode:5.1f}  decode {decode:5.1f} ms/MB")
    for count in () if sizes_only else map(int, threads.split(",")):
        torch.set_num_threads(count)
        for kind in (kind for kind in kinds.split(",") if "bf16" not in kind):
            for name, wall, cpu, told in loops(kind, data, chunk, rounds, group):
                unit = " " if name.endswith("ms") else "%"
                figures = f"{wall:+7.1f} {unit} {cpu:+7.1f} {unit}"
                click.echo(f"{kind:<12}{count} threads  {name:<18}{figures}{told}")


if __name__ == "__main__":
    main()
