"""An analysis cut off before any change to a file of its store: run again, nothing differs."""

from __future__ import annotations

import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from execute_runs import SLOW, assert_same, cut_to, journal_of, replay

from ndt_offline import analyze
from ndt_offline.errors import NdtError
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport
from ndt_offline.replay.setup import Parameters

ROWS = 70  # two blocks
CUTS = 0 if SLOW else 8  # per kind of work; 0: before every change
ANSWER: dict[str, Any] = {
    "detector": "zscore", "draws": 1, "phase_draws": 0, "metrics": ("stable_rank",),
    "phases": ("stable_rank",), "report": False,
}  # fmt: skip
OTHER = Parameters(layers=("relu*", "*.weight"))
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}


class Cut(Exception):
    """The process would be dead by now: no change is made any more."""


class Knife:
    """Counts changes to files below a folder; from the `left`-th on none is made any more."""

    def __init__(self) -> None:
        self.folder, self.left, self.made = "", -1, 0
        sys.addaudithook(self._hear)  # for good: Python knows no way to take one back

    def _hear(self, event: str, about: tuple[object, ...]) -> None:
        if not self.folder or not (event in CHANGES or (event == "open" and _writes(about))):
            return
        # What is removed with its folder is named from that folder. The lock is beside the store.
        inside = f"{about[0]}/".startswith(f"{self.folder}/")
        if not (inside or _is_relative(event, about)):
            return
        if self.made == self.left:
            raise Cut
        self.made += 1

    @contextmanager
    def armed(self, folder: Path, left: int = -1) -> Iterator[None]:
        self.folder, self.left, self.made = str(folder), left, 0
        try:
            yield
        finally:
            self.folder = ""


def _writes(about: tuple[object, ...]) -> bool:
    return isinstance(about[2], int) and bool(about[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _is_relative(event: str, about: tuple[object, ...]) -> bool:
    return event in ("os.remove", "os.rmdir") and about[-1] != -1


KNIFE = Knife()


def here(job: Job, blocks: Sequence[Block], told: object) -> Iterator[BlockReport]:
    """An executor in this process, where changes are seen."""
    runner = BlockRunner(job)
    for block in blocks:
        yield runner(block)


@pytest.fixture(scope="module")
def run(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_to(recorded, tmp_path_factory.mktemp("short") / "run", ROWS)


def fresh(run: Path, before: Path) -> None:
    before.mkdir()


def grown(run: Path, before: Path) -> None:
    """Stands at 39 rows, one of them not in its place."""
    lines = journal_of(run).read_bytes().splitlines(keepends=True)
    journal_of(run).write_bytes(b"".join(lines[:20] + lines[21:40]))
    replay(run, before)
    journal_of(run).write_bytes(b"".join(lines))


def changed(run: Path, before: Path) -> None:
    """Stands with other activations."""
    replay(run, before, OTHER)


def cut_off(before: Path, store: Path, work: Callable[[], object], cuts: int) -> Iterator[int]:
    """Have `work` on copies of a store cut off before so many of its changes, or before each."""

    def cut(left: int) -> bool:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(before, store)
        with KNIFE.armed(store, left):
            try:
                work()
            except (Cut, NdtError):
                assert KNIFE.made == KNIFE.left, "it failed by itself"
                return True
        return False

    assert not cut(-1)
    made = KNIFE.made
    places = random.Random(made).sample(range(made), cuts or made)
    reached = 0
    for place in places:  # the last ones may not come: threads that make a folder together differ
        reached += cut(place)
        yield place
    assert reached > 0.8 * len(places)


@pytest.mark.slow
@pytest.mark.parametrize("start", [fresh, grown, changed])
def test_a_replay_cut_off_before_any_change(
    run: Path, tmp_path: Path, start: Callable[[Path, Path], None]
) -> None:
    before, store, whole = (tmp_path / f"{name}.zarr" for name in ("before", "a", "whole"))
    start(run, before)
    replay(run, whole)

    def work() -> None:
        replay(run, store, executor=here)

    for _ in cut_off(before, store, work, CUTS):
        work()
        assert_same(store, whole)
        assert not list(store.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("stands", ["spectra", "another answer"])
def test_an_answer_cut_off_before_any_change(run: Path, tmp_path: Path, stands: str) -> None:
    before, store, whole = (tmp_path / f"{name}.zarr" for name in ("before", "a", "whole"))
    replay(run, before)
    if stands == "another answer":
        analyze(run, out=before, **ANSWER | {"metrics": ("effective_rank",)})

    def work(out: Path = store) -> None:
        analyze(run, out=out, **ANSWER)

    shutil.copytree(before, whole)
    work(whole)
    expected = everything(whole)
    for place in cut_off(before, store, work, CUTS // 2):
        work()
        found = everything(store)
        assert found.keys() == expected.keys(), place
        for name, (values, about) in expected.items():
            np.testing.assert_array_equal(found[name][0], values, err_msg=f"{name}, {place}")
            assert found[name][1] == about, (name, place)


def everything(store: Path) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """{name: (values, attributes)} of what a reader is shown; not when it was computed."""
    root = zarr.open_group(store, mode="r", use_consolidated=False)
    newest = set(root.attrs["newest"].values())  # type: ignore[union-attr, arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups that were being made or removed
        members = dict(root.members(max_depth=None))
    return {
        name: (
            np.asarray(node[...] if isinstance(node, zarr.Array) else 0),
            {key: value for key, value in node.attrs.items() if key != "time"},
        )
        for name, node in members.items()
        if not name.startswith("derived/") or name.split("/")[1] in newest
    }
