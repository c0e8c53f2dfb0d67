"""What a store holds is not given up, nor believed, without a word."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from zarr.storage import LocalStore

from ndt_offline import analyze, open_run
from ndt_offline.errors import DamagedError, NdtError, RefusedError, UsageError
from ndt_offline.execute import sources
from ndt_offline.execute.keeping import options_of
from ndt_offline.execute.outlook import foresee
from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.readiness import check_time, forget
from ndt_offline.pipeline import Result
from ndt_offline.replay.setup import Parameters, prepare, setup_key
from ndt_offline.report.export import export
from ndt_offline.run import journal
from ndt_offline.store.results import Results
from ndt_offline.store.tables import read_table
from tests.conftest import record_small

OTHER = Parameters(layers=("relu*", "2.weight"))


def quick(path: Path, **options: Any) -> Result:
    about = {"detector": "zscore", "draws": 1, "metrics": ("stable_rank",), "phase_draws": 0}
    return analyze(path, **{**about, "report": False, **options})


def test_other_layers_do_not_replace_a_store_unasked(run_path: Path, tmp_path: Path) -> None:
    store = quick(run_path, parameters=OTHER).store
    with pytest.raises(UsageError, match=r"81 checkpoints measured with --layers 'relu\*'") as said:
        quick(run_path)
    assert "--out" in str(said.value) and "--replace" in str(said.value)
    assert any("would be lost" in line for line in foresee(run_path).lines())
    again = quick(run_path, parameters=OTHER)
    assert again.replayed == 0 and again.store == store
    assert quick(run_path, out=tmp_path / "other.zarr").replayed == 81
    assert quick(run_path, replace=True).replayed == 81


def test_rows_of_a_journal_that_cannot_be_read_now_are_kept(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_small(run_path, updates=400, start_step=200)
    rows, plain = len(quick(run_path).results.steps), journal.read_regular

    def failing(path: Path, most: int | None = None) -> bytes:
        if "0002" in path.parts and path.name == "journal.jsonl":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return plain(path, most)

    with monkeypatch.context() as patched:
        patched.setattr(journal, "read_regular", failing)
        with pytest.raises(NdtError, match=r"Input/output error; 41 checkpoints"):
            quick(run_path)
        assert quick(run_path, replace=True, out=run_path / "other.zarr").replayed == rows
    assert quick(run_path).replayed == 0


def test_what_gives_nothing_up_is_not_refused(run_path: Path) -> None:
    graph = run_path / "graph.json"
    kept = graph.read_bytes()
    graph.unlink()
    assert [s.name for s in quick(run_path).results.spaces if s.layers] == ["weights"]
    quick(run_path, parameters=Parameters(max_side=4096))  # skips the same layers: none is lost
    graph.write_bytes(kept)
    assert all(s.layers for s in quick(run_path).results.spaces)


def test_options_are_named_as_a_user_gives_them() -> None:
    chosen = Parameters(("a*", "b"), (("c", "tokens"),), center=True, max_side=7)
    words = "--layers 'a*' --layers b --as c=tokens --center --max-side 7"
    assert options_of(vars(chosen)) == words
    assert options_of(vars(Parameters())) == "the default options"


@pytest.mark.parametrize("what", ["array", "chunk", "table", "text"])
def test_a_derived_table_that_lost_a_file_is_derived_again(run_path: Path, what: str) -> None:
    first = quick(run_path, threshold=2.0)
    group = first.results.answer("transitions")
    assert group is not None
    before, folder = read_table(group, "series"), first.store / group.path / "series"
    if what == "table":
        shutil.rmtree(folder)
    elif what == "array":
        shutil.rmtree(folder / "matched")
    else:
        (folder / "matched" / ("c/0" if what == "chunk" else "zarr.json")).unlink()
    if what != "chunk":
        with pytest.raises(DamagedError, match=r"is missing") as said:
            export(first.results, run_path / "tables", "csv", ("transitions", "series"))
            read_table(group, "series")
        assert "ndt-analyze" in str(said.value)
    again = quick(run_path, threshold=2.0)
    found = again.results.answer("transitions")
    assert again.replayed == 0 and found is not None
    for name, column in read_table(found, "series").items():
        np.testing.assert_array_equal(column, before[name])


def test_what_other_code_made_of_the_spectra_is_computed_again(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quick(run_path).results
    expected = first.metric("weights", "stable_rank")
    answer = first.root.attrs["newest"]["transitions"]
    first.root["weights/stable_rank"][:] = 7.0  # what an older formula gave
    assert (quick(run_path).results.metric("weights", "stable_rank") == 7.0).all()
    monkeypatch.setattr(sources, "__version__", "another")
    sources.source_key.cache_clear()
    try:
        again = quick(run_path).results
    finally:
        sources.source_key.cache_clear()
    np.testing.assert_array_equal(again.metric("weights", "stable_rank"), expected)
    assert again.root.attrs["newest"]["transitions"] != answer


def test_complex_weights_are_listed_as_not_measured(tmp_path: Path) -> None:
    for step in (5, 10):
        values = {"mix": torch.randn(4, 4, dtype=torch.complex64), "w": torch.randn(6, 4)}
        save_file(values, tmp_path / f"step_{step}.safetensors")
    result = quick(tmp_path)
    assert [x.name for x in result.results.spaces[1].layers] == ["w"]
    assert any("mix" in note and "complex" in note for note in result.notes)


def test_a_graph_that_asks_for_a_year_is_refused_before_it_runs(run_path: Path) -> None:
    setup = prepare(open_run(run_path), Parameters())
    exact = 2 * 32 * (12 * 8 + 8 * 4) + 32 * 8  # two products on 32 rows, and a ReLU
    assert exact <= setup.flops < 100 * exact  # the spectra come on top
    check_time(setup)
    with pytest.raises(RefusedError, match=r"1\.0e\+20 operations, .* h at 1e\+12") as said:
        check_time(replace(setup, flops=1e20))
    assert "--probe" in str(said.value)


def test_auto_has_the_time_of_what_it_becomes(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = replace(prepare(open_run(run_path), Parameters()), flops=1e16)  # 3 h, or 10 s
    monkeypatch.setattr("ndt_offline.replay.device.gpus", list)
    with pytest.raises(RefusedError, match=r"at 1e\+12"):
        check_time(setup, "auto")
    monkeypatch.setattr("ndt_offline.replay.device.gpus", lambda: ["0"])
    check_time(setup, "auto")


def test_marks_are_taken_back_in_one_read_and_one_write_per_chunk(run_path: Path) -> None:
    store = quick(run_path).store
    shutil.rmtree(store / "weights/singular_values/c/0")
    run, parameters = open_run(run_path), Parameters()
    plan = make_plan(run, store, setup_key(run, parameters))
    assert plan.lost == tuple(range(64)) and plan.spectra == 64
    marks = Results(store).root["records/spectra"]
    before, calls = marks[:], []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("get", "set", "delete"):  # a chunk without a mark is deleted
            original = getattr(LocalStore, name)

            def counted(self: Any, key: str, *more: Any, _as: Any = original, **named: Any) -> Any:
                calls.append(key)
                return _as(self, key, *more, **named)

            patch.setattr(LocalStore, name, counted)
        forget(marks, plan.lost)
    assert 1 <= calls.count("records/spectra/c/0") <= 2 and len(calls) <= 4
    assert not marks[:64].any() and (marks[64:] == before[64:]).all()
