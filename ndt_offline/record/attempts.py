"""Opening a run to record into: its folder, the next attempt, and who may do so."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.run import durable
from ndt_offline.run.attempt import folders, number_of, read_attempt, visible
from ndt_offline.run.layout import Layout, clashes
from ndt_offline.run.lock import Lock
from ndt_offline.run.reader import FORMAT_VERSION, read_layout


def open_run_folder(run: Path) -> Lock:
    """Make or enter the run's folder as its only live trainer."""
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "run.json").exists():
        if any(run.glob("*.safetensors")):
            raise UsageError(
                "holds other safetensors files", path=run, remedy="record into an empty directory"
            )
        text = json.dumps({"format": FORMAT_VERSION, "run": f"{time.time_ns():x}"}) + "\n"
        durable.write(run / "run.json", [text.encode()])
    lock = Lock(run / "trainer.lock")
    if not lock.take():
        raise UsageError(
            "another training is recording into this run",
            path=run,
            remedy="end the other training, or record into another directory; where several "
            "processes train together, make the Recorder after init_process_group",
        )
    return lock


def history(run: Path, start_step: int) -> list[str]:
    """What a person should know who starts in a run with earlier attempts."""
    told = []
    attempts = [read_attempt(path) for path in folders(run)]
    entries, _ = visible([a for a in attempts if a.entries])
    hidden = sum(entry.step >= start_step for entry in entries)
    if hidden:
        told.append(
            f"this start hides {hidden} checkpoints of earlier attempts from step {start_step} on; "
            f"`ndt-offline prune {run}` frees them"
        )
    for attempt in [a for a in attempts if not a.closed]:
        told.append(
            f"attempt {attempt.path.name} has no end: its writer is still at work, or was killed "
            f"with the training and at most the ring's content (8 checkpoints after step "
            f"{max(attempt.entries, default='none')}) is lost"
        )
    return told


def open_attempt(run: Path, about: Mapping[str, Any]) -> Path:
    """Make the next attempt's folder; an exclusive mkdir decides between two that start at once."""
    folder = run / "attempts"
    folder.mkdir(exist_ok=True)
    number = 1 + max((number_of(path.name) or 0 for path in folder.iterdir()), default=0)
    while True:
        attempt = folder / f"{number:04d}"
        try:
            attempt.mkdir()
            break
        except FileExistsError:
            number += 1
    for name in ("checkpoints", "raw"):
        (attempt / name).mkdir()
    text = json.dumps({"attempt": number, **about}, indent=1) + "\n"
    durable.write(attempt / "attempt.json", [text.encode()])
    durable.sync_folder(folder)
    return attempt


def keep_layout(run: Path, layout: Layout) -> None:
    """Write the tensor table, once per distinct set; say where a tensor had another shape."""
    path = run / "layouts" / f"{layout.key}.json"
    if not path.exists():
        _tell_clashes(run, layout)
        path.parent.mkdir(exist_ok=True)
        durable.write(path, [layout.to_json().encode()])


def _tell_clashes(run: Path, layout: Layout) -> None:
    known = []
    for path in sorted((run / "layouts").glob("*.json")):
        with contextlib.suppress(NdtError):
            known.append(read_layout(path))
    now = {tensor.name: tensor.shape for tensor in layout.tensors}
    odd = {name: shapes for name, shapes in clashes([*known, layout]).items() if name in now}
    if not odd:
        return
    name = max(odd, key=lambda name: len(now[name]))
    before = next(shape for shape in odd[name] if shape != now[name])
    print(
        f"ndt-offline: {run}: {name} is {list(now[name])} now, and was {list(before)} in this run "
        f"({len(odd)} tensors differ)\n  try: record another model into another directory",
        file=sys.stderr,
    )


def is_first_rank() -> bool:
    """Whether this process records: rank 0 of a distributed training, or the only one."""
    rank = os.environ.get("RANK", "0")
    try:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            return dist.get_rank() == 0
    except (ImportError, RuntimeError, ValueError):
        pass
    return rank == "0"
