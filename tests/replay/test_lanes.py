"""Checkpoints whose layers are solved together give the stores that single ones give."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from ndt_offline import Recorder, analyze, open_run
from ndt_offline.execute import readiness, replay_all, telling
from ndt_offline.execute.lock import locked
from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.execute.replay_all import in_process
from ndt_offline.replay import gain
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.gain import is_worth
from ndt_offline.replay.job import Job
from ndt_offline.replay.lanes import ROWS, Lanes, make_lanes
from ndt_offline.replay.setup import Parameters, prepare, setup_key

pytest.importorskip("numba")
COUNT = 2 * ROWS + 5
NAN, ZERO, DAMAGED, GIVEN_UP = 9, 12, 20, 25
NAMES = ("activations/singular_values", "activations/status", "weights/singular_values")
MORE = ("weights/status", "signals/probe", "records/outcome", "records/problem")
MARKS = ("records/spectra", "records/measured")


def network() -> nn.Sequential:
    """A layer loses its rank from row 5 on, one has zero columns, one is too small to wait."""
    first, last = (nn.Linear(70, 64), nn.Tanh()), (nn.Linear(64, 64), nn.Linear(64, 5))
    return nn.Sequential(*first, nn.Linear(64, 64), *last)


kept: dict[int, dict[str, torch.Tensor]] = {}  # before a row was spoilt


def change(model: nn.Sequential, row: int) -> None:
    first, second, third, last = (part for part in model if isinstance(part, nn.Linear))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        third.weight[:, :7] = 0.0
        if row >= 5:
            second.weight[:] = second.weight[:, :3] @ second.weight[:3, :]
            second.weight /= second.weight.abs().max()
        if row in (NAN, ZERO):
            kept[row] = {name: value.clone() for name, value in model.state_dict().items()}
        if row == NAN:
            last.weight[0, 0] = torch.nan
            first.bias[3] = torch.nan
        if row == ZERO:
            first.weight.zero_()
        if row - 1 in (NAN, ZERO):
            model.load_state_dict(kept.pop(row - 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lanes")
    torch.manual_seed(1)
    model, x = network(), torch.randn(150, 70)
    with Recorder(folder / "run", model, probe=(x, torch.arange(150) % 5), every=1) as record:
        for row in range(1, COUNT):
            change(model, row)
            record(loss=1.0)
    return folder / "run"


@pytest.fixture
def lapack_reduces(monkeypatch: pytest.MonkeyPatch) -> None:
    """With lanes and without: so all that differs is who waits."""
    monkeypatch.setattr("ndt_offline.replay.block.find_reduction", lambda: None)


def replayed(
    run: Path,
    store: Path,
    lanes: bool,
    suffer: Callable[[Path], None] = lambda path: None,
    given_up: tuple[tuple[int, str], ...] = (),
) -> tuple[dict[str, np.ndarray], list[int], list[tuple[int, str]]]:
    """The arrays of a store, the rows that were begun, and the problems that were told."""
    opened, begun, problems = open_run(run), [], []
    plan = make_plan(opened, store, setup_key(opened, Parameters()))
    job = make_job(prepare(opened, Parameters()), store, compiled=lanes)
    with locked(store):
        ready_store(job, plan)
        suffer(opened.entries[DAMAGED].path or run)
        runner = BlockRunner(job)
        for block in plan.blocks:
            mine = tuple((row, why) for row, why in given_up if row in block.todo)
            report = runner(replace(block, given_up=mine), begun.append)
            problems += report.problems
    return arrays_of(store), begun, problems


def arrays_of(store: Path) -> dict[str, np.ndarray]:
    root = zarr.open_group(store, mode="r", use_consolidated=False)
    return {name: np.asarray(root[name][...]) for name in NAMES + MORE + MARKS}


@pytest.mark.usefixtures("lapack_reduces")
def test_stores_are_equal_to_the_last_bit(run: Path, tmp_path: Path) -> None:
    given_up = ((GIVEN_UP, "it killed its process"),)
    expected, alone, problems = replayed(run, tmp_path / "a.zarr", False, given_up=given_up)
    found, begun, told = replayed(run, tmp_path / "b.zarr", True, given_up=given_up)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert told == problems and GIVEN_UP not in begun
    assert begun[:ROWS] == list(range(ROWS)) and set(begun) == set(alone)
    again = len(begun) - len(alone)
    assert 0 < again <= ROWS, "a layer without its small values waits for the others only once"


def test_the_compiled_reduction_gives_the_same_but_for_rounding(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _, _ = replayed(run, tmp_path / "a.zarr", False)
    from ndt_offline.replay import householder

    calls = []

    def counting(lower: np.ndarray, diagonal: np.ndarray, off: np.ndarray) -> None:
        calls.append(len(lower))
        householder.reduce(lower, diagonal, off)

    monkeypatch.setattr("ndt_offline.replay.block.find_reduction", lambda: counting)
    found, _, _ = replayed(run, tmp_path / "b.zarr", True)
    assert {64, 5} <= set(calls), "layers that wait, and those too small for it"
    for name in NAMES[1::2] + MORE + MARKS:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    for name in NAMES[::2]:
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(expected[name]))
        # The eigenvalues are squares, and rounded at the level of the largest.
        ours, theirs = (np.nan_to_num(values[name]) ** 2 for values in (found, expected))
        assert (np.abs(ours - theirs) <= 1e-13 * theirs[..., :1]).all(), name


@pytest.mark.usefixtures("lapack_reduces")
def test_a_damaged_file_among_those_that_wait(run: Path, tmp_path: Path) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-9])

    stores = []
    for lanes in (False, True):
        copy = Path(shutil.copytree(run, tmp_path / str(lanes)))
        found, _, _ = replayed(copy, tmp_path / f"{lanes}.zarr", lanes, suffer=cut)
        stores.append(found)
    for name in NAMES + MORE:
        if name == "records/problem":
            assert [bool(x) for x in stores[0][name]] == [bool(x) for x in stores[1][name]]
        else:
            np.testing.assert_array_equal(stores[0][name], stores[1][name], err_msg=name)
    assert (stores[1]["records/outcome"] != 1).any()


def test_a_row_does_not_depend_on_who_waits_with_it(run: Path, tmp_path: Path) -> None:
    from ndt_offline.run.reader import Decoder

    opened = open_run(run)
    setup, decoder = prepare(opened, Parameters()), Decoder(opened.path, opened.entries)
    replayer = Replayer(opened, setup)
    decoded = [decoder.read(entry) for entry in opened.entries]
    expected = [replayer.measure(one) for one in decoded]
    for chosen in ([2], [1, 2, 3, 4], range(COUNT)):
        lanes = make_lanes()
        assert lanes is not None
        rows = {at: replayer.measure(decoded[at], None, lanes) for at in chosen}
        lost = {id(row) for row in lanes.settle()}
        for at, row in rows.items():
            for space in ("activations", "weights"):
                if id(row) not in lost:
                    np.testing.assert_array_equal(row.spectra[space], expected[at].spectra[space])
                    np.testing.assert_array_equal(row.status[space], expected[at].status[space])


def test_what_waits_is_bounded_and_never_forgotten(run: Path) -> None:
    opened = open_run(run)
    setup = prepare(opened, Parameters())
    sizes: list[int] = []

    def solve(forms: Any) -> list[np.ndarray | None]:
        sizes.append(len(forms))
        return [form.eigenvalues() for form in forms]

    from ndt_offline.run.reader import Decoder

    lanes, replayer = Lanes(solve), Replayer(opened, setup)
    decoder = Decoder(opened.path, opened.entries)
    rows = [replayer.measure(decoder.read(e), None, lanes) for e in opened.entries[:12]]
    weights = setup.spaces[1]
    assert [layer.name for layer in weights.layers][1] == "2.weight"
    lost = {id(row) for row in lanes.settle()}
    assert max(sizes) == ROWS and lanes.settle() == []
    assert not lanes.takes(weights, 1) and lanes.takes(weights, 0) and lanes.takes(weights, 2)
    assert id(rows[6]) in lost
    for row in rows[1:]:
        assert np.isfinite(row.spectra["weights"][0, :64]).all()
        assert (row.spectra["weights"][2, 57:64] == 0).all()


@pytest.mark.usefixtures("lapack_reduces")
def test_without_memory_for_the_lanes_each_row_is_measured_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(forms: Any) -> list[np.ndarray | None]:
        raise MemoryError

    expected, _, _ = replayed(run, tmp_path / "a.zarr", False)
    monkeypatch.setattr("ndt_offline.replay.block.make_lanes", lambda: Lanes(full))
    found, _, _ = replayed(run, tmp_path / "b.zarr", True)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_only_long_jobs_use_numba(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare(open_run(run), Parameters())
    rows = gain.LOADING / (gain.SAVED * 6 * 64**2)  # six layers of 64
    assert not is_worth(setup, int(0.99 * rows)) and is_worth(setup, int(1.01 * rows))
    monkeypatch.setattr(gain, "find_spec", lambda name: None)
    assert not is_worth(setup, 10**6)


def test_a_store_goes_on_as_it_was_begun(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def executor(job: Job, blocks: Any, told: Any) -> Any:
        seen.append(job.compiled)
        return in_process(job, blocks, told)

    opened, half = open_run(run), tmp_path / "half"
    shutil.copytree(run, half)
    for entry in open_run(half).entries[COUNT // 2 :]:
        assert entry.path is not None
        entry.path.rename(tmp_path / entry.path.name)
    store = tmp_path / "a.zarr"
    monkeypatch.setattr(readiness, "is_worth", lambda setup, rows: True)
    analyze(half, out=store, executor=executor)
    monkeypatch.setattr(readiness, "is_worth", lambda setup, rows: False)
    result = analyze(run, out=store, executor=executor)
    assert seen == [True, True]
    assert len(arrays_of(store)["records/outcome"]) == len(opened.entries)
    assert not any("numba" in note for note in result.notes)

    # Where there is no numba any more it goes on, and says so.
    for row in (0, COUNT - 1):
        zarr.open_group(store, mode="r+", use_consolidated=False)["records/spectra"][row] = 0
    monkeypatch.setattr(telling, "find_spec", lambda name: None)
    result = analyze(run, out=store, executor=executor)
    assert next(note for note in result.notes if "numba" in note).startswith("2 checkpoints are")
    assert not any("numba" in note for note in analyze(run, out=store).notes)

    setup, key, plain = (
        prepare(opened, Parameters()),
        setup_key(opened, Parameters()),
        tmp_path / "b",
    )
    assert not readiness.is_compiled(setup, make_plan(opened, plain, key), plain, "cpu")
    replayed(run, plain, False)
    monkeypatch.setattr(readiness, "is_worth", lambda setup, rows: True)
    assert not readiness.is_compiled(setup, make_plan(opened, plain, key), plain, "cpu")
    other = tmp_path / "c"
    assert readiness.is_compiled(setup, make_plan(opened, other, key), other, "cpu")
    assert not readiness.is_compiled(setup, make_plan(opened, other, key), other, "cuda")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_block_that_killed_its_process_is_computed_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, isolated = BlockRunner._one, []

    def deadly(self: BlockRunner, decoder: Any, block: Any, row: int, needs: Any) -> Any:
        if row == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, decoder, block, row, needs)

    def isolate(job: Job, block: Any) -> Any:
        isolated.append(job.compiled)
        monkeypatch.setattr(BlockRunner, "_one", plain)
        return BlockRunner(job)(block)

    monkeypatch.setattr(BlockRunner, "_one", deadly)
    monkeypatch.setattr(replay_all, "isolate", isolate)
    opened, store = open_run(run), tmp_path / "a.zarr"
    with locked(store):
        plan = make_plan(opened, store, setup_key(opened, Parameters()))
        job = make_job(prepare(opened, Parameters()), store, compiled=True)
        ready_store(job, plan)
        reports = list(in_process(job, plan.blocks, lambda rows: None))
    assert sum(report.rows for report in reports) == COUNT and isolated == [True]
    expected, _, _ = replayed(run, tmp_path / "b.zarr", True)
    for name, values in arrays_of(store).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
