"""Following a run while it is being trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from execute_runs import cut_to, journal_of

from ndt_offline.errors import UsageError
from ndt_offline.execute.watch import follow, is_closed
from ndt_offline.run.reader import open_run


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


def test_a_run_without_checkpoints_is_waited_for(recorded: Path, tmp_path: Path) -> None:
    run = cut_to(recorded, tmp_path / "run", 0)
    seen = follow(run, poll=1, idle=5, sleep=lambda s: cut_to(recorded, run, 301) and None)
    assert [len(found.entries) for found in seen] == [300]
    shutil.rmtree(run)
    with pytest.raises(UsageError, match="no such directory"):
        list(follow(run))
    assert journal_of(recorded).exists()
