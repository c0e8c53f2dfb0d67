"""Following a run while it is being trained."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import torch
from execute_runs import cut_to, journal_of
from safetensors.torch import save

from ndt_offline.errors import UsageError
from ndt_offline.execute import watch
from ndt_offline.execute.watch import follow, is_closed
from ndt_offline.run.reader import Run, open_run


def test_it_yields_whenever_there_is_news_and_ends_when_the_run_is_closed(
    recorded: Path, tmp_path: Path
) -> None:
    run, sizes = cut_to(recorded, tmp_path / "run", 10), iter((10, 25, 25, 300, 301))
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        cut_to(recorded, run, next(sizes))

    seen = [len(found.entries) for found in follow(run, poll=1, sleep=sleep)]
    assert seen == [10, 25, 300]
    assert slept == [1] * 5


def test_a_finished_run_is_looked_at_once(recorded: Path) -> None:
    assert is_closed(open_run(recorded))
    assert len(list(follow(recorded, sleep=lambda s: pytest.fail("it waited")))) == 1


def test_a_silent_training_is_given_up(recorded: Path, tmp_path: Path) -> None:
    run = cut_to(recorded, tmp_path / "run", 10)
    slept: list[float] = []
    assert len(list(follow(run, poll=2, idle=20, sleep=slept.append))) == 1
    assert 20 <= sum(slept) <= 24


def test_a_file_of_others_that_was_half_written_is_looked_at_again(tmp_path: Path) -> None:
    whole = save({"w": torch.ones(3, 4)})
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(whole if step == 1 else whole[:-9])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(whole)

    assert len(list(follow(tmp_path, poll=1, idle=5, sleep=sleep))) == 2


def test_a_look_that_fails_is_not_the_end(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain, looks = cut_to(recorded, tmp_path / "run", 10), watch.open_run, [0]

    def failing(path: Path) -> Run:
        looks[0] += 1
        if looks[0] in broken:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return plain(path)

    monkeypatch.setattr(watch, "open_run", failing)
    broken = set(range(3, 5))
    seen = follow(run, poll=1, sleep=lambda s: cut_to(recorded, run, 301) and None)
    assert [len(found.entries) for found in seen] == [10, 300]
    looks[0], broken = 0, set(range(2, 100))
    with pytest.raises(OSError, match="Input/output"):
        list(follow(run, poll=1, idle=5, sleep=lambda s: None))
    looks[0], broken = 0, {1}
    with pytest.raises(OSError, match="Input/output"):
        next(follow(run, sleep=lambda s: pytest.fail("it waited")))


def test_a_run_without_checkpoints_is_waited_for(recorded: Path, tmp_path: Path) -> None:
    run = cut_to(recorded, tmp_path / "run", 0)
    seen = follow(run, poll=1, idle=5, sleep=lambda s: cut_to(recorded, run, 301) and None)
    assert [len(found.entries) for found in seen] == [300]
    shutil.rmtree(run)
    with pytest.raises(UsageError, match="no such directory"):
        list(follow(run))
    assert journal_of(recorded).exists()
