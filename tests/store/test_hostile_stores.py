"""Stores that are somebody else's, damaged, or laid out as a trap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from safetensors.numpy import save_file

from ndt_offline import analyze
from ndt_offline.cli.analyze import main as analyze_main
from ndt_offline.cli.main import main
from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.pipeline import Result
from ndt_offline.replay.forward import Replayer, Row
from ndt_offline.replay.mark import is_passing
from ndt_offline.report.export import export
from ndt_offline.run import journal
from ndt_offline.store import schema
from ndt_offline.store.arrays import put_series
from ndt_offline.store.growth import discard, make_store


def quick(path: Path, **options: object) -> Result:
    about = {"detector": "zscore", "draws": 1, "metrics": ("stable_rank",), "phase_draws": 0}
    return analyze(path, **{**about, "report": False, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def _analysed(_recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analysed") / "ckpts"
    shutil.copytree(_recorded, path)
    quick(path)
    return path


@pytest.fixture
def analysed(_analysed: Path, tmp_path: Path) -> Path:
    """A run with its store, to be damaged."""
    return Path(shutil.copytree(_analysed, tmp_path / "ckpts"))


def test_a_link_in_place_of_the_lock_is_not_followed(run_path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    (run_path / "analysis.zarr.lock").symlink_to(victim)
    with pytest.raises(UsageError, match="is a link"):
        quick(run_path)
    assert victim.read_text() == "dear"


def test_a_link_at_the_old_name_of_a_draft_is_not_followed(analysed: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    (analysed / "analysis.zarr/zarr.json.tmp").symlink_to(victim)
    schema.forget_consolidated(analysed / "analysis.zarr")
    assert victim.read_text() == "dear"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"schema": 1, "block": 64}, "not a store"),
        ({"schema": "mine"}, "not a store"),
        ({"ndt_offline": "yes"}, "not a store"),
        ({"ndt_offline": 99}, "pip install --upgrade"),
    ],
)
def test_stores_of_others_and_newer_ones_are_left_alone(
    run_path: Path, tmp_path: Path, about: dict[str, object], said: str
) -> None:
    store = tmp_path / "theirs.zarr"
    zarr.create_group(store, attributes=about).create_array("x", shape=(3,), dtype="f8")
    with pytest.raises(UsageError) as caught:
        quick(run_path, out=store)
    assert said in str(caught.value)
    assert "x" in zarr.open_group(store, mode="r")


def test_a_backup_beside_a_store_stays(tmp_path: Path) -> None:
    store, backup = tmp_path / "a.zarr", tmp_path / "a.zarr.old"
    for path in (store, backup):
        path.mkdir()
        (path / "file").touch()
    discard(store)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr.old"]
    assert (backup / "file").exists()


def test_a_store_behind_a_link_is_made_where_it_points(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.zarr", tmp_path / "a.zarr"
    real.mkdir(parents=True)
    (real / "rest").touch()
    link.symlink_to(real)
    make_store(link, [], 64, {})
    assert link.is_symlink() and (real / "zarr.json").is_file()
    assert not (real / "rest").exists()


def rejournal(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the records of a journal, each with the checksum that it then has."""
    path = run / "attempts/0001/journal.jsonl"
    records = journal.read(path).records
    path.unlink()
    for record in records:
        record = {key: value for key, value in record.items() if key != "crc"}
        change(record)
        journal.append(path, record)


def test_scalars_named_like_the_probe_are_kept_and_odd_names_mapped(run_path: Path) -> None:
    def rename(record: dict[str, Any]) -> None:
        if record.get("scalars"):
            record["scalars"] = {"probe_foo": 1.5, "probe_loss": 2.5, "zarr.json": 3.5}

    rejournal(run_path, rename)
    result = quick(run_path, targets=("journal_probe_foo",))
    store = result.results
    assert store.signal("journal_probe_foo")[1] == 1.5
    assert store.signal("journal_probe_loss")[1] == 2.5 != store.signal("probe_loss")[1]
    assert np.isnan(store.signal("probe_foo")).all()
    assert {"journal_probe_foo", "journal_probe_loss"} < {*store.signal_names}
    assert "zarr.json" not in store.signal_names
    assert any("zarr.json" in note for note in result.notes) and not result.problems
    own = [name for name in store.signal_names if store.signal(name)[1] == 3.5]
    assert len(own) == 1
    export(store, run_path / "tables", "csv", ("signals",))


def test_a_scalar_of_a_hidden_attempt_is_dropped(analysed: Path) -> None:
    store = analysed / "analysis.zarr"
    signals = schema.open_root(store)["signals"]
    put_series(signals, "old", ("step",), np.ones(signals["step"].shape))
    names = quick(analysed).results.signal_names
    assert "old" not in names and "lr" in names


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("targets", ("losss",)),
        ("metrics", ("stable_rnk",)),
        ("detector", "stepz"),
        ("threshold", float("nan")),
        ("sweep", (4.0, float("inf"))),
        ("params", {"window": float("inf")}),
        ("params", {"windo": 3}),
        ("out", "."),
        ("out", "/"),
    ],
)
def test_a_mistake_is_told_before_any_work(run_path: Path, option: str, value: object) -> None:
    with pytest.raises(UsageError):
        quick(run_path, **{option: value})
    assert not (run_path / "analysis.zarr").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


def without(key: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        about = json.loads(path.read_bytes())
        del about["attributes"][key]
        path.write_text(json.dumps(about))

    return edit


@pytest.mark.parametrize("threshold", [None, 3.0])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("zarr.json", cut),
        ("zarr.json", without("block")),
        ("records/zarr.json", Path.unlink),
        ("records/spectra/zarr.json", Path.unlink),
        ("records/outcome/c/0", flip),
        ("records/step/c/0", cut),
        ("weights/zarr.json", Path.unlink),
        ("weights/layer/c/0", cut),
        ("activations/status/c/0/0", flip),
        ("activations/stable_rank/c/0/0", cut),
        ("signals/loss/c/0", flip),
    ],
)
def test_a_damaged_store_is_named_with_its_remedy(
    analysed: Path, name: str, damage: Callable[[Path], None], threshold: float | None
) -> None:
    store = analysed / "analysis.zarr"
    damage(store / name)
    with pytest.raises(DamagedError) as caught:
        quick(analysed, threshold=threshold)
    assert caught.value.path == store and f"delete {store} and run again" in str(caught.value)


def test_a_chunk_damaged_where_rows_are_left_to_replay(analysed: Path) -> None:
    store = analysed / "analysis.zarr"
    schema.open_root(store)["records/spectra"][3] = 0
    flip(store / "weights/singular_values/c/0/0/0")
    with pytest.raises(DamagedError, match="cannot be read"):
        quick(analysed)


def test_a_command_on_a_damaged_store_ends_with_1(
    analysed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(analysed / "analysis.zarr/signals/loss/c/0")
    monkeypatch.setattr(sys, "argv", ["ndt-offline", "export", str(analysed), "--out", "t"])
    monkeypatch.chdir(analysed)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert f"delete {analysed / 'analysis.zarr'} and run again" in capsys.readouterr().err


def test_a_terminal_without_unicode_sees_the_table(analysed: Path) -> None:
    code = "from ndt_offline.cli.analyze import main; main()"
    about = ["--detector", "zscore", "--draws", "1", "--metrics", "stable_rank", "--no-report"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(analysed), *about]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "81 checkpoints" in done.stdout


@pytest.mark.parametrize(
    "mistake",
    [
        ["--show", "stable_rnk"],
        ["--param", "window=nan"],
        ["--param", "window=inf"],
        ["--sweep", "threshold=nan:8:1"],
        ["--sweep", "threshold=4:inf:1"],
    ],
)
def test_mistaken_options_are_usage_errors(
    run_path: Path, mistake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ndt-analyze", str(run_path), *mistake])
    with pytest.raises(SystemExit) as stopped:
        analyze_main()
    assert stopped.value.code == 2 and not (run_path / "analysis.zarr").exists()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (MemoryError(), True),
        (DamagedError("cannot be read: Input/output error"), True),
        (DamagedError("the file is missing"), False),
        (ValueError("a shape"), False),
    ],
)
def test_passing_faults_are_tried_again(
    run_path: Path, error: Exception, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Replayer.measure

    def failing(self: Replayer, decoded: Any) -> Row:
        if not list(run_path.glob("repaired")):
            raise error
        return measure(self, decoded)

    monkeypatch.setattr(Replayer, "measure", failing)
    assert len(quick(run_path).problems) == 81
    (run_path / "repaired").touch()
    second = quick(run_path)
    assert second.replayed == (81 if again else 0)
    assert second.exit_code == (0 if again else 3)


def test_what_ends_a_process_by_itself_does_not_pass() -> None:
    assert is_passing("a/b: its process was killed by SIGKILL (out of memory?)")
    assert is_passing("a/b: no end after 4 s")
    assert not is_passing("a/b: its process was killed by SIGSEGV")


def test_a_tensor_table_that_is_repaired_is_tried_again(run_path: Path) -> None:
    (table,) = (run_path / "layouts").glob("*.json")
    good = table.read_bytes()
    table.write_bytes(good[:-3])
    assert quick(run_path).exit_code == 3
    table.write_bytes(good)
    second = quick(run_path)
    assert second.exit_code == 0 and second.results.usable.all()


def test_a_new_tensor_in_a_foreign_folder_keeps_the_earlier_rows(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for step in (10, 20, 30):
        values = {"a": rng.standard_normal((6, 4)).astype("f4")}
        if step == 30:
            quick(folder)
            values["b"] = rng.standard_normal((5, 5)).astype("f4")
        save_file(values, folder / f"step_{step}.safetensors")
    store = quick(folder).results
    names = [layer.name for layer in store.spaces[1].layers]
    assert names == ["a", "b"]
    assert np.isfinite(store.spectra("weights")[:, 0, 0]).all()
    assert np.isfinite(store.metric("weights", "stable_rank")[:, 0]).all()


def test_chunks_of_metrics_that_are_lost_are_derived_again(analysed: Path) -> None:
    before = quick(analysed).results.metric("weights", "stable_rank")
    (analysed / "analysis.zarr/weights/stable_rank/c/0/0").unlink()
    after = quick(analysed)
    assert after.replayed == 0
    np.testing.assert_array_equal(after.results.metric("weights", "stable_rank"), before)


def test_chunks_of_the_probe_that_are_lost_are_replayed(analysed: Path) -> None:
    before = quick(analysed).results.signal("probe_loss")
    (analysed / "analysis.zarr/signals/probe/c/1/0").unlink()
    after = quick(analysed)
    assert after.replayed == 81 - 64
    np.testing.assert_array_equal(after.results.signal("probe_loss"), before)
