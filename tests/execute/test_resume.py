"""Resumed, grown, superseded and changed stores equal those of one uninterrupted replay."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from execute_runs import (
    arrays_of,
    assert_same,
    checkpoint_path,
    cut_to,
    journal_of,
    outcomes,
    plan_of,
    record_run,
    replay,
    rows_replayed,
)

from ndt_offline import analyze
from ndt_offline.errors import NdtError, UsageError
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.execute.replay_all import in_process
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.report.runs import open_results
from ndt_offline.run.reader import open_run
from ndt_offline.store import schema
from ndt_offline.store.growth import stepped
from ndt_offline.store.schema import block_length


def first_blocks(count: int):  # type: ignore[no-untyped-def]
    """An executor that is interrupted after some blocks."""

    def executor(job: Job, blocks: Sequence[Block], told: object) -> Iterator[BlockReport]:
        yield from islice(in_process(job, blocks, lambda rows: None), count)

    return executor


def test_five_blocks_of_a_fresh_run(recorded: Path, tmp_path: Path) -> None:
    plan = plan_of(recorded, tmp_path / "a.zarr")
    assert [(b.start, b.stop, len(b.todo)) for b in plan.blocks] == [
        (0, 64, 64), (64, 128, 64), (128, 192, 64), (192, 256, 64), (256, 300, 44),
    ]  # fmt: skip
    assert plan.create and plan.todo == 300 and plan.done == 0


@pytest.mark.parametrize("count", [0, 3])
def test_an_interrupted_replay_goes_on(
    recorded: Path, whole: Path, tmp_path: Path, count: int
) -> None:
    store = tmp_path / "a.zarr"
    replay(recorded, store, executor=first_blocks(count))
    assert rows_replayed(replay(recorded, store)) == 300 - 64 * count
    assert_same(store, whole)
    assert replay(recorded, store) == []


@pytest.mark.parametrize("sizes", [(1, 300), (63, 64, 65, 129, 300)])
def test_a_growing_run_equals_one_replay(
    recorded: Path, whole: Path, tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    store, before = tmp_path / "a.zarr", 0
    for size in sizes:
        run = cut_to(recorded, tmp_path / "run", size)
        assert rows_replayed(replay(run, store)) == size - before
        before = size
    assert_same(store, whole)


def test_rows_inserted_before_others_move_them(
    recorded: Path, whole: Path, tmp_path: Path, run_copy: Path
) -> None:
    store, journal = tmp_path / "a.zarr", journal_of(run_copy)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:100] + lines[101:]))
    assert rows_replayed(replay(run_copy, store)) == 299
    journal.write_bytes(b"".join(lines))
    assert rows_replayed(replay(run_copy, store)) == 200
    assert_same(store, whole)


@pytest.mark.parametrize(("start", "updates"), [(640, 1000), (300, 1700)])
def test_a_restart_supersedes_rows(
    run_copy: Path, tmp_path: Path, start: int, updates: int
) -> None:
    store, fresh = tmp_path / "a.zarr", tmp_path / "fresh.zarr"
    replay(run_copy, store)
    record_run(run_copy, updates, start_step=start)
    rows = (updates - start) // 5 + 1
    assert rows_replayed(replay(run_copy, store)) == rows
    replay(run_copy, fresh)
    assert_same(store, fresh)


def test_a_restart_that_is_taken_back_leaves_no_gap(run_copy: Path, tmp_path: Path) -> None:
    """The metrics of rows that were superseded, and are what they were again."""
    store, before = tmp_path / "a.zarr", tmp_path / "before"
    answer: dict[str, Any] = {"metrics": ("stable_rank",), "phases": (), "report": False}
    answer |= {"detector": "zscore", "draws": 1, "phase_draws": 0}
    expected = analyze(run_copy, out=store, **answer).results.metric("weights", "stable_rank")
    shutil.copytree(run_copy, before)
    record_run(run_copy, 1100, start_step=1000)
    replay(run_copy, store, executor=first_blocks(0))
    shutil.rmtree(run_copy)
    found = analyze(before, out=store, **answer).results.metric("weights", "stable_rank")
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(found, expected)


def test_a_truncated_run_drops_rows(recorded: Path, tmp_path: Path) -> None:
    run, store = cut_to(recorded, tmp_path / "run", 300), tmp_path / "a.zarr"
    replay(run, store)
    cut_to(recorded, run, 90)
    assert replay(run, store) == []
    replay(run, tmp_path / "fresh.zarr")
    assert_same(store, tmp_path / "fresh.zarr")


def counting(monkeypatch: pytest.MonkeyPatch, method: str, log: Path) -> None:
    """Have a method of Replayer leave a line in a file, from whatever process it runs in."""
    plain = getattr(Replayer, method)

    def counted(self: Replayer, *about: object) -> None:
        named = self.graph is not None if method == "_activations" else self.setup.spaces[1].layers
        if named:
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
        plain(self, *about)

    monkeypatch.setattr(Replayer, method, counted)


def test_other_activations_leave_the_weights(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fresh, log = tmp_path / "a.zarr", tmp_path / "fresh.zarr", tmp_path / "log"
    other = Parameters(layers=("relu*", "*.weight"))
    replay(recorded, store)
    counting(monkeypatch, "_weights", log)
    log.touch()
    assert rows_replayed(replay(recorded, store, other)) == 300
    assert log.read_text() == "", "weights were measured again"
    replay(recorded, fresh, other)
    children = Counter(log.read_text().split())
    assert list(children.values()) == [300], "more than one child, or rows measured twice"
    assert_same(store, fresh)


def test_other_weights_leave_the_activations(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fresh, log = tmp_path / "a.zarr", tmp_path / "fresh.zarr", tmp_path / "log"
    other = Parameters(layers=("0", "2", "0.weight"))
    replay(recorded, store)
    counting(monkeypatch, "_activations", log)
    log.touch()
    replay(recorded, store, other)
    assert log.read_text() == "", "the forward pass ran again"
    replay(recorded, fresh, other)
    assert_same(store, fresh)


def test_the_same_layers_by_other_names_compute_nothing(
    recorded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log = tmp_path / "a.zarr", tmp_path / "log"
    shutil.copytree(whole, store)
    for method in ("_activations", "_weights"):
        counting(monkeypatch, method, log)
    log.touch()
    replay(recorded, store, Parameters(layers=("0", "2", "*.weight")))
    assert log.read_text() == ""
    assert_same(store, whole, but=["records/spectra"])


def test_there_and_back_between_two_choices(recorded: Path, whole: Path, tmp_path: Path) -> None:
    store, other = tmp_path / "a.zarr", Parameters(layers=("relu*",))
    replay(recorded, store)
    replay(recorded, store, other, executor=first_blocks(2))
    replay(recorded, store)
    assert_same(store, whole)


@pytest.mark.parametrize("left", ["nothing", "arrays", "a group"])
def test_killed_while_a_space_is_made_anew(
    recorded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Between the removal of the old space and the new one; found by kills at random moments."""
    store = tmp_path / "a.zarr"
    replay(recorded, store, Parameters(layers=("relu*", "*.weight")))

    def killed(root: zarr.Group, space: schema.Space, block: int) -> None:
        folder = store / space.name
        if left == "nothing":
            shutil.rmtree(folder)
        elif left == "arrays":
            (folder / "zarr.json").unlink()
            shutil.rmtree(folder / "layer")
        else:
            for array in ("status", "layer", "singular_values"):
                shutil.rmtree(folder / array)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("ndt_offline.store.growth.create_space", killed)
        replay(recorded, store)
    with pytest.raises(UsageError, match="was interrupted"):
        open_results(store)
    assert plan_of(recorded, store).done == 0
    assert rows_replayed(replay(recorded, store)) == 300
    assert_same(store, whole)


def test_a_change_of_everything_equals_a_fresh_store(recorded: Path, tmp_path: Path) -> None:
    store, fresh, centred = tmp_path / "a.zarr", tmp_path / "b.zarr", Parameters(center=True)
    replay(recorded, store)
    assert rows_replayed(replay(recorded, store, centred)) == 300
    replay(recorded, fresh, centred)
    assert_same(store, fresh)


@pytest.mark.parametrize("name", ["singular_values", "status"])
def test_a_chunk_that_was_lost_is_computed_again(
    recorded: Path, whole: Path, tmp_path: Path, name: str
) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(whole, store)
    for file in (store / f"activations/{name}").rglob("c/1/*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert rows_replayed(replay(recorded, store)) == 64
    assert_same(store, whole)


def test_outcomes_that_were_lost_are_found_again(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    """A mark without an outcome says nothing."""
    store = tmp_path / "a.zarr"
    shutil.copytree(whole, store)
    (store / "records/outcome/c/1").unlink()
    assert rows_replayed(replay(recorded, store)) == 64
    assert_same(store, whole)


def test_marks_go_first(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order a folder lists them; by name they come late."""
    root, plain = zarr.open_group(whole, mode="r", use_consolidated=False), zarr.Group.arrays
    monkeypatch.setattr(zarr.Group, "arrays", lambda group: iter(sorted(plain(group))))
    names = [name for name, _ in stepped(root)]
    assert set(names[:2]) == {"records/spectra", "records/measured"} and len(names) > 10


@pytest.mark.parametrize("group", ["signals", "activations", "weights"])
def test_steps_that_were_lost_are_written_again(
    recorded: Path, whole: Path, tmp_path: Path, group: str
) -> None:
    """They would read as zeros, without an error."""
    store = tmp_path / "a.zarr"
    shutil.copytree(whole, store)
    shutil.rmtree(store / group / "step/c")
    assert replay(recorded, store) == []
    assert_same(store, whole)


def test_a_store_that_was_never_finished_is_made_again(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    zarr.create_group(store, attributes={"ndt_offline": 1, "block": 64})
    replay(recorded, store)
    assert_same(store, whole)
    (tmp_path / "b.zarr").mkdir()
    replay(recorded, tmp_path / "b.zarr")
    assert_same(tmp_path / "b.zarr", whole)


def test_somebody_elses_zarr_store_is_left_alone(recorded: Path, tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr").create_array("x", shape=(3,), dtype="f8")
    with pytest.raises(UsageError, match="not a store"):
        replay(recorded, tmp_path / "a.zarr")
    assert "x" in zarr.open_group(tmp_path / "a.zarr", mode="r")


def test_damaged_rows_are_tried_again_when_a_file_behind_them_changes(
    run_copy: Path, whole: Path, tmp_path: Path
) -> None:
    store, path = tmp_path / "a.zarr", checkpoint_path(run_copy, 700)
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    replay(run_copy, store)
    lost = outcomes(store)
    assert 700 in lost and all(code == 2 for code, _ in lost.values())
    assert path.name in lost[700][1]
    assert replay(run_copy, store) == []
    path.write_bytes(good)
    assert rows_replayed(replay(run_copy, store)) == len(lost)
    assert_same(store, whole)


def test_a_task_that_runs_twice_computes_nothing_and_changes_nothing(
    recorded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "a.zarr"
    plan = plan_of(recorded, store)
    job = make_job(prepare(open_run(recorded), Parameters()), store)
    ready_store(job, plan)
    for block in plan.blocks:
        BlockRunner(job)(block)
    monkeypatch.setattr(Replayer, "measure", lambda self, decoded: pytest.fail("measured again"))
    BlockRunner(job)(plan.blocks[1])
    assert_same(store, whole)


def test_a_task_of_an_earlier_analysis_writes_nothing(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(whole, store)
    block = plan_of(recorded, tmp_path / "none.zarr").blocks[0]
    stale = make_job(prepare(open_run(recorded), Parameters()), store)
    runner = BlockRunner(stale)
    with pytest.raises(NdtError, match="another analysis"):
        runner(replace(block, todo=block.todo[:3]))
    assert_same(store, whole)


def test_batching_never_depends_on_what_was_done(recorded: Path, whole: Path) -> None:
    spectra = arrays_of(whole)["activations/singular_values"]
    assert np.isfinite(spectra[:, 1, :4]).all() and np.isfinite(spectra[:, 0, :8]).all()


@pytest.mark.parametrize(
    ("rows", "size", "block"),
    [(1601, 10**6, 64), (20_001, 10**3, 512), (1601, 5 * 10**8, 8), (50_000, 5 * 10**8, 8)],
)
def test_blocks_are_short_where_checkpoints_are_heavy(rows: int, size: int, block: int) -> None:
    assert block_length(rows, size) == block


def test_heavy_checkpoints_give_many_tasks(
    recorded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "HEAVY", 100)
    store = tmp_path / "a.zarr"
    assert len(plan_of(recorded, store).blocks) == 38
    replay(recorded, store)
    assert_same(store, whole)
