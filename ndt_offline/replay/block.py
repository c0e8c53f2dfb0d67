"""One task: a block of rows replayed and written to the store, the fingerprints last.

A block is one chunk along `step`. Rows already done are read back and written again with the
rest, so that a chunk is always written whole; the record that a row is done is written after
everything it speaks of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ndt_offline.errors import DamagedError, NdtError
from ndt_offline.replay.forward import Replayer, Row
from ndt_offline.replay.mark import Block, BlockReport, row_fingerprint
from ndt_offline.replay.setup import Setup
from ndt_offline.run.attempt import Entry
from ndt_offline.run.reader import Decoder, open_run
from ndt_offline.store.schema import OUTCOME, open_root


class BlockRunner:
    """Replays blocks of one run into one store; kept by a process for all its blocks."""

    def __init__(self, setup: Setup, store: str) -> None:
        self._setup = setup
        self._replayer = Replayer(open_run(setup.run), setup)
        self._store = Path(store)

    def __call__(self, block: Block, told: Callable[[int], None] | None = None) -> BlockReport:
        started = time.perf_counter()
        arrays = _Arrays(self._store, self._setup, block)
        decoder = Decoder(Path(self._setup.run), (*block.before, *block.entries))
        problems = []
        for row in block.todo:
            entry = block.entries[row - block.start]
            outcome, result = self._one(decoder, entry)
            arrays.put(row - block.start, row_fingerprint(self._setup.key, entry), outcome, result)
            if result.problem:
                problems.append((entry.step, result.problem))
            if told:
                told(1)
        arrays.write()
        seconds = time.perf_counter() - started
        return BlockReport(block.start, len(block.todo), seconds, tuple(problems))

    def _one(self, decoder: Decoder, entry: Entry) -> tuple[str, Row]:
        try:
            row = self._replayer.measure(decoder.read(entry))
        except NdtError as error:
            row = Row.empty(self._setup.spaces)
            row.problem = f"{error.path or entry.path}: {error.what}"
            return ("damaged" if isinstance(error, DamagedError) else "refused"), row
        return ("failed" if row.problem else "ok"), row


class _Arrays:
    """The rows of a block in memory, loaded from and written to the store as whole chunks."""

    def __init__(self, store: Path, setup: Setup, block: Block) -> None:
        root = open_root(store)
        self._span = slice(block.start, block.stop)
        names = ["signals/probe", "records/outcome", "records/problem"]
        for space in setup.spaces:
            if space.layers:
                names += [f"{space.name}/singular_values", f"{space.name}/status"]
        names.append("records/spectra")  # the record that the rows are done: last
        self._stored = {name: root[name] for name in names}
        fresh = len(block.todo) == block.stop - block.start
        self._rows = {
            name: np.full(
                (block.stop - block.start, *array.shape[1:]), array.fill_value, array.dtype
            )
            if fresh
            else np.asarray(array[self._span])
            for name, array in self._stored.items()
        }

    def put(self, at: int, mark: int, outcome: str, row: Row) -> None:
        self._rows["records/spectra"][at] = mark
        self._rows["records/outcome"][at] = OUTCOME[outcome]
        self._rows["records/problem"][at] = row.problem
        self._rows["signals/probe"][at] = row.probe
        for space, spectra in row.spectra.items():
            if len(spectra):
                self._rows[f"{space}/singular_values"][at] = spectra
                self._rows[f"{space}/status"][at] = row.status[space]

    def write(self) -> None:
        for name, array in self._stored.items():
            array[self._span] = self._rows[name]
