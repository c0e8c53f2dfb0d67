"""`ndt-offline import`: pickles into a run of ours, bit for bit, nothing executed, resumable."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ndt_offline import open_run
from ndt_offline.cli import main
from ndt_offline.errors import DamagedError, RefusedError, UsageError
from ndt_offline.record import imported
from ndt_offline.record.imported import import_checkpoints
from ndt_offline.record.pickled import read_pickled
from ndt_offline.run import journal


def state(step: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(20, 30)
    torch.manual_seed(step)
    weight = base + 0.01 * torch.randn(20, 30)
    return {"0.weight": weight, "norm": torch.randn(7).bfloat16(), "seen": torch.tensor(step)}


def same(run: Path, step: int, expected: dict[str, torch.Tensor]) -> None:
    found = open_run(run).checkpoint(step)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("wrap", "step"),
    [
        (lambda s: s, None),
        (lambda s: {"state_dict": s, "global_step": 12, "epoch": 3}, 12),
        (lambda s: {"model": s, "iteration": torch.tensor(12)}, 12),
        (lambda s: {"model_state_dict": s, "epoch": 4, "loss": 0.5}, None),
        (lambda s: {"net": s, "global_step": -3}, None),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_where_trainers_put_the_weights(tmp_path: Path, wrap: Any, step: Any, old: bool) -> None:
    path = tmp_path / "x.pt"
    named = {f"module._orig_mod.{name}": tensor for name, tensor in state(1).items()}
    torch.save(wrap(named), path, _use_new_zipfile_serialization=not old)
    found = read_pickled(path)
    assert set(found.state) == set(state(1)) and found.step == step
    assert found.epoch == wrap({}).get("epoch")
    assert all(torch.equal(found.state[n], t) for n, t in state(1).items())


def test_a_step_in_the_name_counts_more_than_an_epoch_inside(tmp_path: Path) -> None:
    for step in range(1000, 7000, 1000):
        torch.save({"model": state(step), "epoch": step // 3000}, tmp_path / f"step_{step}.pt")
    torch.save({"model": state(7), "epoch": 7}, tmp_path / "last.pt")
    done = import_checkpoints([tmp_path], tmp_path / "run")
    assert done.steps == [7, *range(1000, 7000, 1000)] and not done.problems


def test_a_pickle_may_be_written_anew_while_it_is_read(tmp_path: Path) -> None:
    """A mapped file that becomes shorter ends the process."""
    path = tmp_path / "last.ckpt"
    torch.save(state(1), path)
    found = read_pickled(path)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(path) not in maps.read_text()
    os.truncate(path, 10)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state(1).items())


def test_losses_are_looked_up_by_the_steps_that_count(tmp_path: Path) -> None:
    """The pickle's own step, where the name says another."""
    torch.save({"model": state(1), "global_step": 10}, tmp_path / "epoch_1.pt")
    torch.save({"model": state(2), "global_step": 20}, tmp_path / "epoch_2.pt")
    rows = [{"step": step, "loss": 1 / step} for step in (1, 2, 10, 20)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    import_checkpoints([tmp_path], tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.steps == [10, 20] and run.scalar("loss").tolist() == [0.1, 0.05]


def test_a_step_whose_line_is_odd_is_not_said_to_be_imported(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save(state(step), tmp_path / f"step_{step}.pt")
    import_checkpoints([tmp_path / "step_1.pt"], tmp_path / "run")
    odd = {"kind": "checkpoint", "step": 2, "file": "x", "size": -1}
    journal.append(tmp_path / "run" / "attempts" / "0001" / "journal.jsonl", odd)
    done = import_checkpoints([tmp_path], tmp_path / "run")
    assert done.steps == [] and done.kept == 1
    assert [problem.step for problem in done.problems] == [2]


def test_lossless_resumable_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "pt", tmp_path / "run"
    source.mkdir()
    steps = [1, 2, 4, 8, 100, 1000]
    for step in steps:
        named = {**state(step), "tied": (weights := state(step))["0.weight"]}
        named["0.weight"] = named["tied"]
        del weights
        torch.save({"model": named, "global_step": step, "loss": 1 / step}, source / f"{step}.pt")
    save_file(state(50), source / "step_50.safetensors")
    calls = 0

    def stopped(done: int, of: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_checkpoints([source], out, told=stopped)
    assert open_run(out).steps == [1, 2, 4]
    done = import_checkpoints([source], out)
    assert done.steps == [8, 50, 100, 1000] and done.kept == 3 and not done.problems
    run = open_run(out)
    assert run.steps == [1, 2, 4, 8, 50, 100, 1000] and len(run.attempts) == 1
    assert run.scalar("loss")[:4].tolist() == [1, 0.5, 0.25, 0.125]
    for step in steps:
        same(out, step, {**state(step), "tied": state(step)["0.weight"]})
    same(out, 50, state(50))
    torch.save(state(3), source / "step_3.pt")
    late = import_checkpoints([source], out)
    assert not late.steps and [p.step for p in late.problems] == [3]


def test_a_change_on_disk_is_found_when_it_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state(1), tmp_path / "step_1.pt")
    write = imported.Writer.write

    def spoiled(self: Any, *args: Any) -> bool:
        stored = write(self, *args)
        (path,) = (self.attempt / "checkpoints").glob("*.safetensors")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return stored

    monkeypatch.setattr(imported.Writer, "write", spoiled)
    done = import_checkpoints([tmp_path / "step_1.pt"], tmp_path / "run")
    assert [problem.step for problem in done.problems] == [1]


def test_what_would_run_code_is_refused_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state(1), "step_1.pt")
    torch.save({"state_dict": Evil()}, "step_2.ckpt")
    Path("step_3.bin").write_bytes(b"cposix\nsystem\n(S'touch pwned'\ntR.")
    Path("step_4.pth").write_bytes(Path("step_1.pt").read_bytes()[:-200])
    torch.save({"optimizer": {"lr": 0.1}}, "step_5.pt")
    with pytest.raises(RefusedError, match=r"posix\.system"):
        read_pickled(Path("step_2.ckpt"))
    with pytest.raises(DamagedError):
        read_pickled(Path("step_4.pth"))
    os.mkfifo("step_6.pt")
    line = ["ndt-offline", "import", ".", "--out", "run"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    said = capsys.readouterr()
    assert stopped.value.code == 3 and not Path("pwned").exists()
    assert "imported 1 checkpoints" in said.out and "5 could not be used" in said.out
    assert "posix.system" in said.err and "holds no state dict" in said.err


def test_shards_of_pickles_and_a_key(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    for number, name in enumerate(state(7), 1):
        torch.save({name: state(7)[name]}, folder / f"pytorch_model-0000{number}-of-00003.bin")
    files = sorted(path.name for path in folder.iterdir())
    index = dict(zip(state(7), files, strict=True))

    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    import_checkpoints([tmp_path], tmp_path / "run")
    same(tmp_path / "run", 7, state(7))
    torch.save({"deep": {"ema": state(9)}}, tmp_path / "step_9.pt")
    import_checkpoints([tmp_path / "step_9.pt"], tmp_path / "other", key="deep.ema")
    same(tmp_path / "other", 9, state(9))


def test_an_import_that_was_cut_off_at_its_beginning_goes_on(tmp_path: Path) -> None:
    torch.save(state(1), tmp_path / "step_1.pt")
    (tmp_path / "run" / "attempts" / "0001").mkdir(parents=True)
    assert import_checkpoints([tmp_path / "step_1.pt"], tmp_path / "run").steps == [1]
    same(tmp_path / "run", 1, state(1))


def test_a_recorded_run_is_left_alone(run_path: Path, tmp_path: Path) -> None:
    torch.save(state(1), tmp_path / "step_1.pt")
    before = sorted(run_path.rglob("*"))
    with pytest.raises(UsageError, match="recorded training"):
        import_checkpoints([tmp_path / "step_1.pt"], run_path)
    assert [p for p in sorted(run_path.rglob("*")) if p.suffix != ".lock"] == [
        p for p in before if p.suffix != ".lock"
    ]
