"""The rows of a block in memory, loaded from and written to the store as whole chunks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ndt_offline.replay.forward import Row
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block
from ndt_offline.storage.location import locate
from ndt_offline.store.schema import MEASURES, open_root

MARKS = ("records/measured", "records/spectra")  # in the order they are written: last of all


class Chunk:
    """Rows [start, stop) of every array that a replay writes."""

    def __init__(self, job: Job, block: Block) -> None:
        job.check_token()
        self._job, self._start = job, block.start
        self.spaces = frozenset(space.name for space in job.setup.spaces)
        root = open_root(locate(job.store))
        names = ["signals/probe", "records/outcome", "records/problem"]
        for space in job.setup.spaces:
            if space.layers:
                names += [f"{space.name}/singular_values", f"{space.name}/status"]
        self._stored = {name: root[name] for name in (*names, *MARKS)}
        self._span = slice(block.start, block.stop)
        count = block.stop - block.start
        marks = {name: np.asarray(self._stored[name][self._span]) for name in MARKS}
        fresh = len(block.todo) == count and not any(m.any() for m in marks.values())
        self._rows = marks | {
            name: np.full((count, *array.shape[1:]), array.fill_value, array.dtype)
            if fresh
            else np.asarray(array[self._span])
            for name, array in self._stored.items()
            if name not in MARKS
        }

    def mark(self, row: int) -> int:
        return int(self._rows["records/spectra"][row - self._start])

    def measured(self, row: int, space: str) -> int:
        return int(self._rows["records/measured"][row - self._start, MEASURES.index(space)])

    def outcome(self, row: int) -> int:
        return int(self._rows["records/outcome"][row - self._start])

    def put(
        self,
        row: int,
        needs: Collection[str],
        outcome: int,
        result: Row,
        mark: int,
        marks: Mapping[str, int],
    ) -> None:
        """Keep a row's results for the spaces in `needs`; the other space stands."""
        at = row - self._start
        self._rows["records/spectra"][at] = mark
        self._rows["records/outcome"][at] = outcome
        self._rows["records/problem"][at] = result.problem
        if "activations" in needs:
            self._rows["signals/probe"][at] = result.probe
        for space, value in marks.items():
            self._rows["records/measured"][at, MEASURES.index(space)] = value
            name = f"{space}/singular_values"
            if space in needs and name in self._rows:
                self._rows[name][at] = result.spectra[space]
                self._rows[f"{space}/status"][at] = result.status[space]

    def write(self) -> None:
        """Write every array whole, the marks after everything they speak of."""
        self._job.check_token()
        for name, array in self._stored.items():
            array[self._span] = self._rows[name]
