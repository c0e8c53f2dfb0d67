"""The main job end to end: whole runs, damaged runs, other people's runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ndt_offline import Recorder, analyze, open_run
from ndt_offline.cli.show import head_lines
from ndt_offline.errors import UsageError
from ndt_offline.pipeline import Result
from ndt_offline.replay.setup import Parameters
from ndt_offline.report.alerts import check_rules, parse_rule
from ndt_offline.report.failures import find_signatures
from ndt_offline.run import journal
from ndt_offline.store.schema import OUTCOME, STATUS

from .conftest import record_small, small_model

QUICK = {
    "detector": "zscore", "draws": 1, "phase_draws": 0, "phases": (), "metrics": ("stable_rank",),
    "report": False,
}  # fmt: skip
CheckpointFile = Callable[[int], Path]


def quick(path: Path, **options: object) -> Result:
    return analyze(path, **{**QUICK, **options})  # type: ignore[arg-type]


def test_every_number_is_that_of_the_live_model(run_path: Path) -> None:
    store = quick(run_path).results
    run = open_run(run_path)
    torch.manual_seed(0)
    x, y = torch.randn(64, 12)[:32], torch.randint(0, 4, (64,))[:32]
    model = small_model().eval()
    for row, step in enumerate(store.steps):
        model.load_state_dict(run.checkpoint(int(step)))
        with torch.no_grad():
            first = model[0](x)
            output = model(x)
        layers = {"0": first, "2": output}
        for index, layer in enumerate(store.spaces[0].layers):
            exact = np.linalg.svd(layers[layer.name].double().numpy(), compute_uv=False)
            found = store.spectra("activations")[row, index, : len(exact)]
            assert np.abs(found - exact).max() <= 1e-9 * exact[0]
        for index, layer in enumerate(store.spaces[1].layers):
            exact = np.linalg.svd(model.state_dict()[layer.name].double().numpy(), compute_uv=False)
            found = store.spectra("weights")[row, index, : len(exact)]
            assert np.abs(found - exact).max() <= 1e-9 * exact[0]
        loss = F.cross_entropy(output.double(), y)
        assert store.signal("probe_loss")[row] == pytest.approx(float(loss), rel=1e-12)
        hits = (output.argmax(1) == y).double().mean()
        assert store.signal("probe_accuracy")[row] == float(hits)


def test_layers_metrics_and_signals_are_all_there(run_path: Path) -> None:
    result = analyze(run_path, detector="zscore", draws=1, phase_draws=0)
    store = result.results
    assert result.exit_code == 0 and result.problems == []
    assert store.steps.tolist() == list(range(0, 401, 5))
    assert [(x.name, x.rows, x.columns) for x in store.spaces[0].layers] == [
        ("0", 32, 8),
        ("2", 32, 4),
    ]
    assert [(x.name, x.rows, x.columns) for x in store.spaces[1].layers] == [
        ("0.weight", 8, 12),
        ("2.weight", 4, 8),
    ]
    assert len(result.table) == 4 * 8
    assert np.isnan(store.signal("loss")[0]) and np.isfinite(store.signal("loss")[1:]).all()
    assert np.isfinite(store.signal("grad_norm")[1:]).all()
    assert (store.signal("lr")[1:] == 0.1).all()
    row = next(r for r in result.table if (r["layer"], r["metric"]) == ("0", "stable_rank"))
    s = store.spectra("activations")[:, 0]
    assert row["first"] == pytest.approx((s[0] ** 2).sum() / s[0, 0] ** 2, rel=1e-12)
    assert row["rho_loss"] is not None and row["clock_loss"] is not None


def test_a_new_threshold_opens_no_checkpoint_and_loads_no_torch(
    run_path: Path, checkpoint_file: CheckpointFile
) -> None:
    before = quick(run_path)
    shutil.rmtree(checkpoint_file(0).parent)
    code = (
        "import sys; from ndt_offline import analyze; "
        f"r = analyze({str(run_path)!r}, detector='zscore', draws=1, threshold=2.0); "
        "assert not {'torch', 'dask', 'distributed', 'matplotlib'} & set(sys.modules); "
        "print(r.exit_code, r.replayed, sum(row['transitions'] for row in r.table))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, replayed, found = map(int, out.stdout.split())
    assert (exit_code, replayed) == (0, 0)
    assert found > sum(row["transitions"] for row in before.table)


def test_a_growing_run_replays_only_what_is_new(run_path: Path, intact: Result) -> None:
    target = run_path / "attempts/0001/journal.jsonl"
    lines = target.read_bytes().splitlines(keepends=True)
    # By step: on a busy machine the trainer writes some itself, and their lines come later.
    early = [line for line in lines if json.loads(line).get("step", 400) < 350]
    target.write_bytes(b"".join(early))
    assert quick(run_path).replayed == 70
    target.write_bytes(b"".join(lines))
    result = quick(run_path)
    assert result.replayed == 11
    assert_same_store(result, intact)


def assert_same_store(one: Result, other: Result) -> None:
    a, b = one.results, other.results
    for group in ("activations", "weights", "signals", "records"):
        names = {name for name, _ in b.root[group].arrays()}
        assert names == {name for name, _ in a.root[group].arrays()}
        for name in names - {"spectra"}:  # fingerprints hold the graph and are compared elsewhere
            np.testing.assert_array_equal(a.root[group][name][...], b.root[group][name][...])


def problems_of(result: Result) -> list[tuple[int | None, str]]:
    return [(p.step, f"{p.path} {p.what}") for p in result.problems]


def usable_steps(result: Result) -> set[int]:
    store = result.results
    return set(store.steps[store.usable].tolist())


@pytest.fixture(scope="module")
def intact(_recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the recorded run gives where nothing is wrong with it."""
    return quick(_recorded, out=tmp_path_factory.mktemp("intact") / "analysis.zarr")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_listed_and_the_rest_analysed(
    run_path: Path, checkpoint_file: CheckpointFile, intact: Result, damage: str
) -> None:
    path = checkpoint_file(200)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(data[:-10])
    elif damage == "flipped":
        data[-20] ^= 0x10
        path.write_bytes(data)
    else:
        path.unlink()
    result = quick(run_path)
    listed = problems_of(result)
    assert result.exit_code == 3
    assert (200, path.name) in [(step, path.name) for step, what in listed if path.name in what]
    lost = {step for step, _ in listed}
    assert 200 in lost and all(200 <= step < 200 + 32 * 5 for step in lost if step is not None)
    assert usable_steps(result) == set(range(0, 401, 5)) - lost
    kept = result.results.usable
    np.testing.assert_array_equal(
        result.results.spectra("weights")[kept], intact.results.spectra("weights")[kept]
    )
    again = quick(run_path, threshold=2.0)
    assert again.exit_code == 3 and again.replayed == 0
    path.write_bytes(b"")
    assert quick(run_path).replayed == len(lost), "a changed file is tried again"


def test_without_graph_weights_only(run_path: Path) -> None:
    (run_path / "graph.json").unlink()
    result = quick(run_path)
    assert {row["space"] for row in result.table} == {"weights"}
    assert result.exit_code == 0 and any("--model" in note for note in result.notes)


def test_without_graph_a_model_gives_the_same(run_path: Path, intact: Result) -> None:
    (run_path / "graph.json").unlink()
    result = quick(run_path, parameters=Parameters(model="tests.conftest:small_model"))
    np.testing.assert_array_equal(
        result.results.spectra("activations"), intact.results.spectra("activations")
    )


@pytest.mark.parametrize("name", ["graph.json", "probe.safetensors"])
def test_a_damaged_graph_or_probe_leaves_the_weights(run_path: Path, name: str) -> None:
    (run_path / name).write_bytes((run_path / name).read_bytes()[:-30])
    result = quick(run_path)
    assert result.exit_code == 3
    assert [Path(p.path).name for p in result.problems] == [name]
    assert {row["space"] for row in result.table} == {"weights"}


def test_a_probe_that_does_not_fit_is_named(run_path: Path) -> None:
    save_file({"x": torch.zeros(5, 7), "y": torch.zeros(5).long()}, run_path / "probe.safetensors")
    result = quick(run_path)
    assert result.exit_code == 3 and {row["space"] for row in result.table} == {"weights"}
    assert "probe.safetensors" in result.problems[0].path
    assert "7" in result.problems[0].what and "12" in result.problems[0].what


def test_a_step_that_was_never_journaled_is_a_gap(run_path: Path) -> None:
    path = run_path / "attempts/0001/journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"step":205,' not in line))
    result = quick(run_path)
    assert 205 not in result.results.steps and 200 in result.results.steps


def test_plain_safetensors_files_give_weights_only(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for step in (1, 2, 4, 512, 1000):
        torch.manual_seed(step)
        save_file(small_model().state_dict(), folder / f"model_step{step}.safetensors")
    save_file({"x": torch.zeros(2)}, folder / "final.safetensors")
    result = quick(folder)
    assert result.results.steps.tolist() == [1, 2, 4, 512, 1000]
    assert {row["space"] for row in result.table} == {"weights"}
    assert any("weights only" in note for note in result.notes)
    assert any("final.safetensors" in p.path for p in result.problems) and result.exit_code == 3
    assert quick(folder).replayed == 0


def test_hugging_face_folders_with_their_log(tmp_path: Path) -> None:
    for step in (10, 20):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file(small_model().state_dict(), folder / "model.safetensors")
        history = [
            {"step": s, "loss": 1.0 / s, "learning_rate": 0.1} for s in (10, 20) if s <= step
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    store = quick(tmp_path / "out").results
    assert store.steps.tolist() == [10, 20]
    assert store.signal("loss").tolist() == [0.1, 0.05] and store.signal("lr").tolist() == [0.1] * 2


def test_a_second_attempt_that_rewinds_hides_what_it_supersedes(tmp_path: Path) -> None:
    path = tmp_path / "ckpts"
    record_small(path, updates=400)
    first = quick(path)
    record_small(path, updates=300, start_step=200)
    run = open_run(path)
    assert run.steps == list(range(0, 301, 5)) and run.hidden == 41
    assert {e.attempt for e in run.entries if e.step < 200} == {1}
    assert {e.attempt for e in run.entries if e.step >= 200} == {2}
    result = quick(path)
    assert result.replayed == 21
    assert any("hidden" in note for note in result.notes)
    np.testing.assert_array_equal(
        result.results.spectra("weights")[:40], first.results.spectra("weights")[:40]
    )
    fresh = quick(path, out=tmp_path / "fresh.zarr")
    assert_same_store(result, fresh)


def test_nan_and_infinite_weights_are_a_status(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = small_model(), torch.randn(8, 12)
    with Recorder(tmp_path / "ckpts", model, probe=(x, torch.zeros(8).long())) as record:
        for step in range(1, 21):
            with torch.no_grad():
                if step == 8:
                    model[2].weight[0, 0] = float("nan")
                if step == 13:
                    model[2].weight[0, 0] = 0.0
                    model[0].bias[0] = float("inf")
            record(loss=float("nan") if step > 7 else 1.0)
    result = quick(tmp_path / "ckpts")
    store = result.results
    weights = store.root["weights/status"][:]
    assert (
        weights[:, 1].tolist() == [STATUS["ok"]] * 2 + [STATUS["not_finite"]] + [STATUS["ok"]] * 2
    )
    activations = store.root["activations/status"][:]
    assert (activations[:2] == STATUS["ok"]).all()
    assert activations[2].tolist() == [STATUS["ok"], STATUS["not_finite"]]
    assert (activations[3:] == STATUS["not_finite"]).all()
    assert (store.outcomes == OUTCOME["ok"]).all() and result.exit_code == 0
    assert any("NaN or infinite" in note for note in result.notes)


def test_a_run_that_ends_without_numbers_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = small_model(), torch.randn(8, 12)
    with Recorder(tmp_path / "ckpts", model, probe=(x, torch.zeros(8).long()), every=1) as record:
        for step in range(1, 81):
            if step == 61:
                with torch.no_grad():
                    model[0].weight[0, 0] = float("nan")
            record(loss=float("nan") if step > 60 else 1.0 / step)
    rules = [parse_rule(text) for text in ("probe_loss > -1", "loss > -1", "stable_rank(2) > -1",
                                           "stable_rank(2.weight) > 0", "diverged(0)")]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no medians of nothing on the screen
        result = quick(tmp_path / "ckpts")
        signs = find_signatures(result.results, result.table)
    met = check_rules(rules, result.results, result.table, signs=signs)
    assert [line.split(":")[0] for line in met] == ["stable_rank(2.weight) > 0", "diverged(0)"]
    last = {row["layer"]: row["last"] for row in result.table if row["metric"] == "stable_rank"}
    assert last["0"] is last["2"] is last["0.weight"] is None and last["2.weight"] > 0
    found = {one.where: one.step for one in signs if one.name == "diverged"}
    places = ("loss", "probe_loss", "activations/0", "activations/2", "weights/0.weight")
    assert found == dict.fromkeys(places, 61)
    accuracy = result.results.signal("probe_accuracy")
    assert np.isfinite(accuracy[:61]).all() and np.isnan(accuracy[61:]).all()
    assert "not a number" in "".join(head_lines(result))


def test_layers_by_glob_and_globs_that_match_nothing(run_path: Path) -> None:
    result = quick(run_path, parameters=Parameters(layers=("relu*", "2.weight")))
    names = {(row["space"], row["layer"]) for row in result.table}
    assert {space for space, _ in names} == {"activations", "weights"}
    assert ("weights", "2.weight") in names and len(names) == 2
    relu = result.results.spectra("activations")[0, 0]
    assert np.isfinite(relu).sum() == 8
    with pytest.raises(UsageError, match="no layer matches"):
        quick(run_path, parameters=Parameters(layers=("transformer.*",)))


def test_centred_spectra_are_those_of_the_centred_matrix(run_path: Path) -> None:
    store = quick(run_path, parameters=Parameters(center=True)).results
    torch.manual_seed(0)
    x = torch.randn(64, 12)[:32]
    model = small_model()
    model.load_state_dict(open_run(run_path).checkpoint(400))
    first = model[0](x).detach().double().numpy()
    exact = np.linalg.svd(first - first.mean(0), compute_uv=False)
    assert store.spectra("activations")[-1, 0, :8] == pytest.approx(exact, rel=1e-9)


def test_directories_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        quick(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no run\.json"):
        quick(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="99"):
        quick(tmp_path)


def test_a_store_that_is_something_else_is_not_overwritten(run_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="not a store"):
        quick(run_path, out=folder)
    assert (folder / "thesis.txt").read_text() == "words"


def test_a_journal_that_points_outside_the_run_reads_nothing(run_path: Path) -> None:
    outside = run_path.parent / "secret.safetensors"
    shutil.copy(next((run_path / "attempts/0001/checkpoints").iterdir()), outside)
    record = {"kind": "checkpoint", "step": 9999, "file": "../../../secret.safetensors"}
    record |= {"size": outside.stat().st_size, "file_crc": "0" * 8, "content": "0" * 8}
    journal.append(run_path / "attempts/0001/journal.jsonl", record)
    run = open_run(run_path)
    assert 9999 not in run.steps
    assert any("outside" in problem.what for problem in run.problems)
