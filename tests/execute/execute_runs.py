"""Runs to execute on, replays without the derived part, and stores compared value for value."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

from ndt_offline import open_run
from ndt_offline.execute.lock import locked
from ndt_offline.execute.plan import Plan, make_plan
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.execute.replay_all import Executor, in_process
from ndt_offline.replay.job import Limits
from ndt_offline.replay.mark import BlockReport
from ndt_offline.replay.setup import Parameters, prepare, setup_key
from ndt_offline.store.growth import stepped
from tests.conftest import record_small

SLOW = os.environ.get("NDT_SLOW") == "1"


def record_run(path: Path, updates: int, start_step: int = 0, seed: int = 0) -> Path:
    """A small network trained on a fixed task, recorded every 5 updates; its journals by step.

    On a busy machine the trainer writes some checkpoints itself: their lines come later, and are
    followed by others when the writer has coded them.
    """
    before = {child.pid for child in psutil.Process().children()}
    record_small(path, updates, start_step, seed)
    end = time.monotonic() + 180
    while time.monotonic() < end and _at_work(before):
        time.sleep(0.05)  # the writer: what it has not coded it codes after the training
    for journal in path.glob("attempts/*/journal.jsonl"):
        lines = journal.read_bytes().splitlines(keepends=True)
        last = {_place(line): line for line in lines}  # what it says of a step in the end
        journal.write_bytes(b"".join(last[place] for place in sorted(last)))
    return path


def _at_work(before: set[int]) -> bool:
    """Whether a child that was not there before is alive."""
    new = [child for child in psutil.Process().children() if child.pid not in before]
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(child.status() != psutil.STATUS_ZOMBIE for child in new)
    return True


def _place(line: bytes) -> float:
    record = json.loads(line)
    return float("inf") if record["kind"] == "close" else record["step"]


def journal_of(run: Path, attempt: int = 1) -> Path:
    return run / f"attempts/{attempt:04d}/journal.jsonl"


def checkpoint_path(run: Path, step: int) -> Path:
    """Its file; on a busy machine that is one that the trainer wrote itself."""
    path = open_run(run).entry(step).path
    assert path is not None
    return path


def cut_to(source: Path, target: Path, lines: int) -> Path:
    """A copy of a run as it was when the journal had that many lines."""
    if not target.exists():
        shutil.copytree(source, target)
    whole = journal_of(source).read_bytes().splitlines(keepends=True)
    journal_of(target).write_bytes(b"".join(whole[:lines]))
    return target


def plan_of(run: Path, store: Path, parameters: Parameters | None = None) -> Plan:
    opened = open_run(run)
    return make_plan(opened, store, setup_key(opened, parameters or Parameters()))


def replay(
    run: Path,
    store: Path,
    parameters: Parameters | None = None,
    executor: Executor = in_process,
    limits: Limits | None = None,
) -> list[BlockReport]:
    """What `analyze` does up to the spectra: lock, plan, make ready, run every block."""
    parameters = parameters or Parameters()
    opened = open_run(run)
    with locked(store):
        plan = make_plan(opened, store, setup_key(opened, parameters))
        if plan.idle:
            return []
        job = make_job(prepare(opened, parameters), store, limits)
        ready_store(job, plan)
        with closing(executor(job, plan.blocks, lambda rows: None)) as reports:
            return list(reports)


def rows_replayed(reports: Iterable[BlockReport]) -> int:
    return sum(report.rows for report in reports)


def arrays_of(store: Path) -> dict[str, np.ndarray]:
    """Every array that has a row per step, and the coordinates of the spaces."""
    root = zarr.open_group(store, mode="r", use_consolidated=False)
    found = {name: np.asarray(array[...]) for name, array in stepped(root)}
    for space in ("activations", "weights"):
        for key in ("layer", "rows", "columns", "kind", "component"):
            found[f"{space}/{key}"] = np.asarray(root[f"{space}/{key}"][...])
    return found


def assert_same(one: Path, other: Path, but: Iterable[str] = ()) -> None:
    """Every array of two stores is the same, value for value."""
    a, b = arrays_of(one), arrays_of(other)
    assert a.keys() == b.keys()
    for name in a.keys() - set(but):
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def outcomes(store: Path) -> dict[int, tuple[int, str]]:
    """{step: (outcome, problem)} of the rows that could not be used."""
    arrays: dict[str, Any] = arrays_of(store)
    steps, codes = arrays["records/step"], arrays["records/outcome"]
    texts = arrays["records/problem"]
    return {int(steps[i]): (int(codes[i]), str(texts[i])) for i in np.flatnonzero(codes != 1)}
