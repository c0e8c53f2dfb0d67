"""The driver killed with SIGKILL at random moments: run again, every array is what it would be."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from execute_runs import (
    SLOW,
    assert_same,
    cut_to,
    journal_of,
    plan_of,
    replay,
    rows_replayed,
)

from ndt_offline.errors import UsageError
from ndt_offline.execute.lock import locked
from ndt_offline.execute.replay_all import in_process
from ndt_offline.replay.mark import BlockReport
from ndt_offline.replay.setup import Parameters

KILLS = 100 if SLOW else 4  # per kind of work
PARTS = 4  # of the uninterrupted time, in which the moments are spread evenly and at random


def killed_after(seconds: float, work: Callable[[], object]) -> bool:
    """Run `work` in a fork and kill it; False where it had finished before."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def again(run: Path, store: Path) -> list[BlockReport]:
    """Run again as soon as the last process of the killed one is gone."""
    wait_for(store)
    return replay(run, store)


def wait_for(store: Path) -> None:
    """A child of the killed one holds its lock until its last write is done."""
    for _ in range(3000):
        try:
            with locked(store):
                return
        except UsageError:
            time.sleep(0.02)
    raise AssertionError("the lock is still held")


def fresh(run: Path, store: Path, recorded: Path) -> None:
    pass


def grown(run: Path, store: Path, recorded: Path) -> None:
    """Stands at 150 rows, one of them not in its place."""
    lines = journal_of(recorded).read_bytes().splitlines(keepends=True)
    journal_of(run).write_bytes(b"".join(lines[:70] + lines[71:151]))
    replay(run, store)
    cut_to(recorded, run, 300)


def changed(run: Path, store: Path, recorded: Path) -> None:
    """Stands with other activations."""
    replay(run, store, Parameters(layers=("relu*", "*.weight")))


@pytest.mark.slow
@pytest.mark.parametrize("start", [fresh, grown, changed])
def test_killed_at_random_moments(
    recorded: Path,
    whole: Path,
    run_copy: Path,
    tmp_path: Path,
    start: Callable[[Path, Path, Path], None],
) -> None:
    before, store = tmp_path / "before.zarr", tmp_path / "a.zarr"
    start(run_copy, before, recorded)
    if not before.exists():
        before.mkdir()
    began = time.monotonic()
    shutil.copytree(before, store)
    replay(run_copy, store)
    whole_time = time.monotonic() - began
    assert_same(store, whole)
    chance, trial, killed, partly = random.Random(5), 0, 0, 0
    # Where the machine's pace changes, moments miss the work: then there are more of them.
    while trial < KILLS or (trial < 10 * KILLS and (killed < KILLS / 2 or not partly)):
        shutil.rmtree(store)
        shutil.copytree(before, store)
        moment = (trial % PARTS + chance.random()) / PARTS * whole_time
        if killed_after(moment, lambda: replay(run_copy, store)):
            killed += 1
        else:  # the machine is faster than it was when the time was taken
            whole_time *= 0.9
        wait_for(store)
        done = plan_of(run_copy, store).done
        partly += 0 < done < 300
        if not done and trial % PARTS > 1:
            whole_time *= 1.3
        trial += 1
        assert rows_replayed(again(run_copy, store)) == 300 - done
        assert_same(store, whole)
        assert not list(store.rglob("*.partial"))
    assert killed >= KILLS / 2 and partly >= 1


def test_killed_again_and_again_it_still_gets_there(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    began = time.monotonic()
    replay(recorded, tmp_path / "timed.zarr", executor=in_process)
    part = (time.monotonic() - began) * 0.6
    for _ in range(20):
        if not killed_after(part, lambda: again(recorded, store)):
            break
        part *= 1.15
    again(recorded, store)
    assert_same(store, whole)
