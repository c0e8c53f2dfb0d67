"""What there is to do: which rows stand, which are new or superseded, and in which blocks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ndt_offline.errors import UsageError
from ndt_offline.run.identity import fingerprint
from ndt_offline.run.reader import Run
from ndt_offline.store.results import Results
from ndt_offline.store.schema import OUTCOME, block_length

if TYPE_CHECKING:
    from ndt_offline.replay.block import Block

SEGMENT = 32  # a checkpoint builds on at most this many before it


@dataclass(frozen=True)
class Plan:
    """Rows of the store for a run, and the blocks still to replay."""

    create: bool  # there is no store for this replay yet
    steps: np.ndarray
    unchanged: int  # rows at the front whose steps are as they were
    old_rows: int
    blocks: tuple[Block, ...]

    @property
    def todo(self) -> int:
        return sum(len(block.todo) for block in self.blocks)

    @property
    def grows(self) -> bool:
        return self.create or self.old_rows != len(self.steps) or self.unchanged < self.old_rows


def make_plan(run: Run, store: Path, key: int) -> Plan:
    """Compare a run with its store. Loads no torch and reads no checkpoint."""
    steps = np.array(run.steps, np.int64)
    results = _existing(store, key)
    if results is None:
        length = block_length(len(steps))
        return Plan(True, steps, 0, 0, _blocks(run, np.zeros(len(steps), bool), length))
    old = results.steps
    common = min(len(old), len(steps))
    unchanged = sum(1 for _ in takewhile(bool, old[:common] == steps[:common]))
    done = np.zeros(len(steps), bool)
    done[:unchanged] = _done(run, results, key, unchanged)
    blocks = _blocks(run, done, int(results.attrs["block"]))
    return Plan(False, steps, unchanged, len(old), blocks)


def bad_stamp(run: Run, outcomes: np.ndarray) -> str:
    """Identity of the files behind rows that could not be used: when it changes, try again."""
    rows = np.flatnonzero(outcomes > OUTCOME["ok"])
    return f"{fingerprint([(run.entries[i].step, run.entries[i].stamp()) for i in rows]):016x}"


def _existing(store: Path, key: int) -> Results | None:
    if not store.exists():
        return None
    if not (store / "zarr.json").is_file():
        raise UsageError("is not a store of ndt-offline", path=store, remedy="give another --out")
    results = Results(store)
    if "schema" not in results.attrs:
        raise UsageError("is not a store of ndt-offline", path=store, remedy="give another --out")
    return results if results.attrs.get("setup", {}).get("key") == f"{key:016x}" else None


def _done(run: Run, results: Results, key: int, rows: int) -> np.ndarray:
    from ndt_offline.replay.mark import row_fingerprint

    expected = [row_fingerprint(key, entry) for entry in run.entries[:rows]]
    done = results.fingerprints[:rows] == np.array(expected, np.uint64)
    outcomes = results.outcomes[:rows]
    if results.attrs.get("bad_stamp") != bad_stamp(run, outcomes):
        done &= outcomes <= OUTCOME["ok"]
    return done


def _blocks(run: Run, done: np.ndarray, length: int) -> tuple[Block, ...]:
    from ndt_offline.replay.mark import Block

    blocks = []
    for start in range(0, len(done), length):
        stop = min(start + length, len(done))
        todo = tuple(int(row) for row in start + np.flatnonzero(~done[start:stop]))
        if todo:
            entries = tuple(run.entries[start:stop])
            before = tuple(run.entries[max(0, start - SEGMENT) : start])
            blocks.append(Block(start, stop, entries, before, todo))
    return tuple(blocks)
