"""The rows of a block in memory, loaded from and written to the store as whole chunks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ndt_offline.replay.forward import Row
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block
from ndt_offline.storage.location import locate
from ndt_offline.store.schema import MARKS, MEASURES, open_root


def written_arrays(job: Job) -> dict[str, Any]:
    """The arrays that a replay writes, opened once: while the job holds the store none changes."""
    root = open_root(locate(job.store))
    names = ["signals/probe", "records/outcome", "records/problem"]
    for space in job.setup.spaces:
        if space.layers:
            names += [f"{space.name}/singular_values", f"{space.name}/status"]
    return {name: root[name] for name in (*names, *MARKS)}


class Chunk:
    """Rows [start, stop) of every array that a replay writes."""

    def __init__(self, job: Job, block: Block, arrays: Mapping[str, Any] | None = None) -> None:
        job.check_token()
        self._job, self._start = job, block.start
        self.spaces = frozenset(space.name for space in job.setup.spaces)
        self._stored = arrays if arrays is not None else written_arrays(job)
        self._span = slice(block.start, block.stop)
        self._count, self._todo = block.stop - block.start, len(block.todo)
        self._marks = {name: np.asarray(self._stored[name][self._span]) for name in MARKS}
        self._outcome = np.asarray(self._stored["records/outcome"][self._span])

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """Every array; not read, and so not written, where only a measure is added."""
        fresh = self._todo == self._count and not any(m.any() for m in self._marks.values())
        return self._marks | {
            name: np.full((self._count, *array.shape[1:]), array.fill_value, array.dtype)
            if fresh
            else np.asarray(array[self._span])
            for name, array in self._stored.items()
            if name not in MARKS
        }

    def mark(self, row: int) -> int:
        return int(self._marks["records/spectra"][row - self._start])

    def measured(self, row: int, space: str) -> int:
        return int(self._marks["records/measured"][row - self._start, MEASURES.index(space)])

    def outcome(self, row: int) -> int:
        return int(self._outcome[row - self._start])

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
        if "_rows" not in self.__dict__:
            return  # nothing was put
        self._job.check_token()
        for name, array in self._stored.items():
            array[self._span] = self._rows[name]
