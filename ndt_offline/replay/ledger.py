"""A measure's rows of one block in memory, read from and written to its group as whole chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ndt_offline.errors import NdtError
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block
from ndt_offline.storage.location import locate
from ndt_offline.store.measures import GROUP
from ndt_offline.store.schema import open_root

NOTHING = "no layer gave a number"


def stored_parts(job: Job, name: str, key: str) -> dict[str, Any]:
    """The arrays of a measure in the order they are written: the mark, which speaks of the others,
    comes last. Opened once: while the job holds the store none changes."""
    group = open_root(locate(job.store))[f"{GROUP}/{name}"]
    if group.attrs.get("key") != key:
        raise NdtError(f"measure {name} in the store is another one by now", path=job.store)
    return {part: group[part] for part in ("values", "problem", "mark")}


class Ledger:
    """Rows [start, stop) of one measure; nothing is written where nothing was put."""

    def __init__(self, job: Job, block: Block, stored: Mapping[str, Any]) -> None:
        self._job, self._start, self._touched = job, block.start, False
        self._span, self._stored = slice(block.start, block.stop), stored
        self._rows = {"mark": np.asarray(stored["mark"][self._span])}
        if self._rows["mark"].any():
            for part in ("values", "problem"):
                self._rows[part] = np.asarray(self._stored[part][self._span])
        else:
            count = block.stop - block.start
            for part in ("values", "problem"):
                array = self._stored[part]
                self._rows[part] = np.full((count, *array.shape[1:]), array.fill_value, array.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and quantities."""
        layers, quantities = self._rows["values"].shape[1:]
        return layers, quantities

    def mark(self, row: int) -> int:
        return int(self._rows["mark"][row - self._start])

    def put(self, row: int, values: np.ndarray | None, problem: str, mark: int) -> None:
        """Keep a row: values [layer, quantity], or None where there are none."""
        at = row - self._start
        self._touched = True
        self._rows["values"][at] = np.nan if values is None else values
        # A chunk of NaN alone is not written: only with a reason it is not taken for lost.
        nothing = values is None or not np.isfinite(values).any()
        self._rows["problem"][at] = problem or (NOTHING if nothing else "")
        self._rows["mark"][at] = mark

    def write(self) -> None:
        """Write what changed, the marks last."""
        if not self._touched:
            return
        self._job.check_token()
        # Nothing to say is written too: rows that are tried again may have left their words there.
        for part, array in self._stored.items():
            array[self._span] = self._rows[part]
