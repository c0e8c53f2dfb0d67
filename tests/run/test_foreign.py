"""Folders of checkpoints that others wrote: steps from names, shards, histories, hostile input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ndt_offline import analyze, open_run
from ndt_offline.errors import DamagedError, RefusedError, UsageError
from ndt_offline.run import units
from ndt_offline.run.naming import step_in
from ndt_offline.run.shards import read_index

PYTHIA = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 5000, 1000)]


def weights(step: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(step).standard_normal((6, 4)).astype("f4")
    return {"a.weight": values, "b.bias": values[0], "n": np.array(step)}


def write(path: Path, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights(step), path)


def sharded(folder: Path, step: int, index: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"model-{k:05d}-of-00003.safetensors" for k in (1, 2, 3)]
    for file, (name, value) in zip(files, weights(step).items(), strict=True):
        save_file({name: value}, folder / file)
    where = index if index is not None else dict(zip(weights(step), files, strict=True))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("step_100.safetensors", 100),
        ("model-000100.safetensors", 100),
        ("checkpoint-100/model.safetensors", 100),
        ("ckpt/100/model.safetensors", 100),
        ("run7/step=300/model-00001-of-00003.safetensors", 300),
        ("epoch=3-step=1200-loss=0.12.safetensors", 1200),
        ("epoch_3.safetensors", 3),
        ("iter_0000500/weights.safetensors", 500),
        ("step1000/model_2.safetensors", 1000),
        ("seed3/step_100_v2.safetensors", 100),
        ("run3/model.safetensors", None),
        ("model-00001-of-00003.safetensors", None),
        ("step10k.safetensors", None),
        ("model-0.987.safetensors", None),
        ("last.safetensors", None),
        (f"step_{2**50}.safetensors", None),
        ("step_0.5.safetensors", None),
        ("epoch_1.5.safetensors", None),
        ("step=1e3.safetensors", None),
        ("step_15e-3.safetensors", None),
        ("step_5.2.safetensors", None),  # of two numbers nobody can say which
        ("epoch_12-acc_0.93.safetensors", 12),
        ("step_5.v2.safetensors", 5),
        ("step_12epoch3.safetensors", 12),
    ],
)
def test_steps_from_names(path: str, step: int | None) -> None:
    assert step_in(path.split("/")) == step


@pytest.mark.parametrize(
    "pattern",
    ["step_{}.safetensors", "checkpoint-{}/model.safetensors", "ckpt/{}/model.safetensors"],
)
def test_irregular_steps_in_any_pattern(tmp_path: Path, pattern: str) -> None:
    for step in PYTHIA:
        write(tmp_path / pattern.format(step), step)
    run = open_run(tmp_path)
    assert run.steps == PYTHIA and not run.problems
    for step in (4, 3000):
        for name, value in weights(step).items():
            np.testing.assert_array_equal(run.checkpoint(step)[name].numpy(), value)


def test_irregular_steps_are_analysed(tmp_path: Path) -> None:
    for step in PYTHIA:
        write(tmp_path / f"step{step}.safetensors", step)
    result = analyze(tmp_path, draws=1, phases=())
    assert result.exit_code == 0 and result.report is not None
    assert result.results.steps.tolist() == PYTHIA
    found = result.results.series("weights", "a.weight", "stable_rank")
    s = [np.linalg.svd(weights(step)["a.weight"], compute_uv=False) for step in PYTHIA]
    np.testing.assert_allclose(found, [(v**2).sum() / v[0] ** 2 for v in s], rtol=1e-6)
    again = analyze(tmp_path, draws=1, phases=())
    assert again.replayed == 0
    write(tmp_path / "step3.safetensors", 3)  # a gap is filled: later rows move
    assert analyze(tmp_path, draws=1, phases=()).results.steps.tolist() == sorted([*PYTHIA, 3])


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    for step in (10, 30):
        sharded(tmp_path / f"checkpoint-{step}", step)
    write(tmp_path / "checkpoint-20/model.safetensors", 20)
    run = open_run(tmp_path)
    assert run.steps == [10, 20, 30] and not run.problems
    for step in run.steps:
        state = run.checkpoint(step)
        assert set(state) == set(weights(step))
        np.testing.assert_array_equal(state["a.weight"].numpy(), weights(step)["a.weight"])
    assert analyze(tmp_path, draws=1, report=False).exit_code == 0
    # A shard that changed is another checkpoint: that row alone is replayed.
    shard = tmp_path / "checkpoint-30/model-00001-of-00003.safetensors"
    save_file({"a.weight": 2 * weights(30)["a.weight"]}, shard)
    os.utime(shard, (1, 1))
    assert analyze(tmp_path, draws=1, report=False).replayed == 1


@pytest.mark.parametrize(
    "file",
    ["../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..\\x.safetensors",
     "C:x.safetensors", ".hidden.safetensors", "model.bin", "x\n.safetensors", 7, None],
)  # fmt: skip
def test_an_index_names_files_of_its_own_folder_alone(tmp_path: Path, file: object) -> None:
    write(tmp_path / "secret.safetensors", 1)
    write(tmp_path / "runs/checkpoint-1/model.safetensors", 1)
    folder = tmp_path / "runs/checkpoint-2"
    sharded(folder, 2, {"a.weight": file})  # type: ignore[dict-item]
    with pytest.raises(RefusedError, match="file of its own folder"):
        read_index(folder / "model.safetensors.index.json")
    run = open_run(tmp_path / "runs")
    assert run.steps == [1] and len(run.problems) == 1
    assert "of its own folder" in run.problems[0].what


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 100_000, '{"weight_map": ['],
)
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path / "checkpoint-1/model.safetensors", 1)
    sharded(tmp_path / "checkpoint-2", 2)
    (tmp_path / "checkpoint-2/model.safetensors.index.json").write_text(text)
    run = open_run(tmp_path)
    assert run.steps == [1] and len(run.problems) == 1


def test_an_index_must_agree_with_its_shards(tmp_path: Path) -> None:
    sharded(tmp_path / "checkpoint-1", 1)
    files = [f"model-{k:05d}-of-00003.safetensors" for k in (1, 2, 3)]
    swapped = {"a.weight": files[1], "b.bias": files[0], "n": files[2]}
    sharded(tmp_path / "checkpoint-2", 2, swapped)
    sharded(tmp_path / "checkpoint-3", 3)
    (tmp_path / "checkpoint-3" / files[2]).unlink()
    run = open_run(tmp_path)
    assert run.steps == [1, 2] and "lacks" in run.problems[0].what
    with pytest.raises(DamagedError, match="not where the index says"):
        run.checkpoint(2)
    result = analyze(tmp_path, draws=1, phases=())
    assert result.exit_code == 3 and len(result.problems) == 2
    assert result.results.usable.tolist() == [True, False]


def test_everything_unusable_is_listed_with_a_reason(tmp_path: Path) -> None:
    write(tmp_path / "step_1.safetensors", 1)
    write(tmp_path / "sub/step_1.safetensors", 1)
    write(tmp_path / "best.safetensors", 1)
    write(tmp_path / "checkpoint-5/model-00001-of-00002.safetensors", 5)
    (tmp_path / "step_9.pt").write_bytes(b"x")
    (tmp_path / "checkpoint-5/optimizer.pt").write_bytes(b"x")
    run = open_run(tmp_path)
    said = {Path(problem.path).name: problem.what for problem in run.problems}
    assert run.steps == [1]
    assert said.pop("best.safetensors") == "no step in its name; left out"
    assert said.pop("step_1.safetensors") == "has the same step as step_1.safetensors; left out"
    assert "without the index" in said.pop("model-00001-of-00002.safetensors")
    assert "not opened" in said.pop("step_9.pt") and not said


def test_names_that_only_begin_like_an_optimizers(tmp_path: Path) -> None:
    weights_ = ("email_step_1", "loss_landscape_step_2", "optimal_step_3", "schedule_step_4")
    others = ("ema_step_5", "optimizer_step_6", "optim-7", "loss_history_8", "rng_states_9")
    for name in (*weights_, *others, "lossless_step_10"):
        write(tmp_path / f"{name}.safetensors", 1)
    assert open_run(tmp_path).steps == [1, 2, 3, 4, 10]


def test_of_several_models_the_whole_one_is_taken(tmp_path: Path) -> None:
    for name in ("adapter_model", "consolidated", "model", "pytorch_model"):
        write(tmp_path / f"checkpoint-1/{name}.safetensors", 1)
    (entry,) = open_run(tmp_path).entries
    assert entry.path is not None and entry.path.name == "model.safetensors"


def test_beyond_the_limit_what_was_seen_counts_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(10):
        write(tmp_path / f"step_{step}.safetensors", step)
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}/step_77.safetensors", 77)
    monkeypatch.setattr(units, "MOST", 8)
    run = open_run(tmp_path)
    assert run.steps == [0, 1, 2, 3, 4]  # a, b and c come first
    assert [problem.what for problem in run.problems] == [
        "holds more than 8 names; the rest was left out"
    ]


def test_pickles_alone_say_how_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "step_9.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match="pickled objects; not opened") as caught:
        open_run(tmp_path)
    assert caught.value.remedy == f"ndt-offline import {tmp_path} --out RUN"


def state(folder: Path, rows: object) -> None:
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": rows}))


def test_the_newest_readable_history_counts_at_matching_steps(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path / f"checkpoint-{step}/model.safetensors", step)
    rows = [
        {"step": 9, "loss": 2.0, "grad_norm": 1.5, "learning_rate": 0.1, "epoch": 0.1},
        {"step": 9, "eval_loss": 2.5, "eval_runtime": 3.0, "eval_accuracy": "nan"},
        {"step": 55, "loss": 1.0},
        {"step": 100, "loss": True, "eval_loss": [1], "grad_norm": 1e400},
    ]
    state(tmp_path / "checkpoint-10", [{"step": 9, "loss": 7.0}])
    state(tmp_path / "checkpoint-100", rows)
    run = open_run(tmp_path)
    assert run.scalar_names == ["loss", "grad_norm", "lr", "eval_loss", "eval_accuracy"]
    np.testing.assert_array_equal(run.scalar("loss"), [2.0, np.nan, 1.0])
    np.testing.assert_array_equal(run.scalar("eval_loss"), [2.5, np.nan, np.nan])
    (tmp_path / "checkpoint-100/trainer_state.json").write_text("{" * 200_000)
    run = open_run(tmp_path)
    np.testing.assert_array_equal(run.scalar("loss"), [7.0, np.nan, np.nan])
    assert len(run.problems) == 1 and "no losses from it" in run.problems[0].what


@pytest.mark.parametrize("step", [-1, 1.5, "9", None, 2**60])
def test_a_history_with_odd_steps_is_not_believed(tmp_path: Path, step: object) -> None:
    write(tmp_path / "checkpoint-9/model.safetensors", 9)
    state(tmp_path / "checkpoint-9", [{"step": step, "loss": 1.0}])
    run = open_run(tmp_path)
    assert len(run.problems) == 1 and not run.scalar_names
