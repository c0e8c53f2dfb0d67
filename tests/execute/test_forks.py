"""Pieces of work in children: every answer in its place, whatever becomes of the children."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from ndt_offline.errors import UsageError
from ndt_offline.execute.derive import derive
from ndt_offline.execute.forks import in_forks
from ndt_offline.execute.guard import CAN_FORK
from ndt_offline.execute.question import Question
from ndt_offline.store.results import Results
from ndt_offline.store.schema import WIDE
from ndt_offline.store.tables import read_table

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="forks are for Linux")
HERE = os.getpid()


@pytest.mark.parametrize("count", [0, 1, 2, 37])
def test_every_answer_is_in_its_place_and_made_by_children(count: int) -> None:
    values = np.arange(100.0).reshape(50, 2)
    answers = in_forks(lambda i: (values[i].sum(), os.getpid()), count, 3)
    assert [total for total, _ in answers] == [4.0 * i + 1 for i in range(count)]
    makers = {pid for _, pid in answers}
    assert HERE not in makers and len(makers) <= min(3, count)


def test_an_error_of_the_work_is_raised_here() -> None:
    def task(number: int) -> int:
        if number == 5:
            raise UsageError("no such thing", remedy="another")
        return number

    with pytest.raises(UsageError, match="no such thing") as said:
        in_forks(task, 9, 2)
    assert said.value.remedy == "another"


@pytest.mark.parametrize("deadly", [{3}, set(range(12))])
def test_what_kills_children_is_computed_here(deadly: set[int]) -> None:
    def task(number: int) -> tuple[int, int]:
        if number in deadly and os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGKILL)
        return number, os.getpid()

    answers = in_forks(task, 12, 2)
    assert [number for number, _ in answers] == list(range(12))
    assert all(pid == HERE for number, pid in answers if number in deadly)


def test_large_answers_and_no_child_left_behind() -> None:
    before = {child.pid for child in psutil.Process().children()}
    rows = in_forks(lambda i: np.full(300_000, i), 6, 2)
    assert [row[-1] for row in rows] == list(range(6))
    assert {child.pid for child in psutil.Process().children()} <= before


def test_other_threads_of_the_caller_do_no_harm() -> None:
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            np.zeros(10_000).sum()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            assert in_forks(lambda i: float(np.ones(9).sum()) + i, 4, 2) == [9.0, 10.0, 11.0, 12.0]
    finally:
        stop.set()
        thread.join()


IMPORTS = """
import sys
from ndt_offline.execute import derive, forks
from ndt_offline.execute.question import Question
from ndt_offline.store.results import Results

child = forks._child

def watched(task, pipe):
    before = set(sys.modules)

    def then(number):
        found = task(number)
        with open(sys.argv[2], "a") as log:
            print(number, *sorted(set(sys.modules) - before), file=log)
        return found

    child(then, pipe)

forks._child = watched
question = Question(metrics=("stable_rank", "effective_rank"), draws=1, phase_draws=19)
derive.derive(Results(sys.argv[1]), question)
"""


def test_children_import_nothing(whole: Path, tmp_path: Path) -> None:
    """A third of a second for each child of each stage, otherwise."""
    store, log = tmp_path / "a.zarr", tmp_path / "log"
    shutil.copytree(whole, store)
    subprocess.run([sys.executable, "-c", IMPORTS, str(store), str(log)], check=True)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) > 10 and [line for line in lines if line[1:]] == []


def test_an_answer_does_not_depend_on_how_many_computed_it(whole: Path, tmp_path: Path) -> None:
    question = Question(metrics=("stable_rank", "effective_rank"), draws=2, phase_draws=19)
    tables = []
    for workers in (1, 3):
        store = Path(shutil.copytree(whole, tmp_path / f"{workers}.zarr"))
        stages = derive(Results(store), question, workers).stages
        tables.append({
            f"{stage}/{name}/{column}": values
            for stage, group in stages.items()
            for name, _ in group.groups()
            for column, values in read_table(group, name).items()
        })  # fmt: skip
    assert tables[0].keys() == tables[1].keys() and len(tables[0]) > 40
    for name, values in tables[0].items():
        np.testing.assert_array_equal(values, tables[1][name], err_msg=name)


def test_metrics_are_the_same_in_parts(whole: Path, tmp_path: Path, monkeypatch: object) -> None:
    from ndt_offline.execute import derive as stage

    one, other = (Path(shutil.copytree(whole, tmp_path / name)) for name in ("a", "b"))
    stage.put_metrics(Results(one), ("stable_rank", "effective_rank"))
    assert len(Results(one).steps) < WIDE
    monkeypatch.setattr(stage, "PART", 1)  # type: ignore[attr-defined]
    stage.put_metrics(Results(other), ("stable_rank", "effective_rank"))
    for metric in ("stable_rank", "effective_rank"):
        a, b = (Results(store).metric("weights", metric) for store in (one, other))
        np.testing.assert_array_equal(a, b)
