"""The writing side of a recording: encodes, writes, journals. Loads no torch.

Order matters: the file first, then its journal line. What has no line does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ndt_offline.errors import NdtError
from ndt_offline.record import rawfile
from ndt_offline.record.segment import Segment, on_grid
from ndt_offline.record.syncer import Syncer
from ndt_offline.run import checkpoint, grid, journal
from ndt_offline.run.checkpoint import Written
from ndt_offline.run.layout import Layout, Vectors

UNREAD = "cannot be read: "  # in what is said of a file that may be readable the next time


class Writer:
    """The only writer of one attempt's checkpoints and journal."""

    def __init__(
        self,
        attempt: Path,
        precision: str | None = None,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.attempt = attempt
        self.counts = dict.fromkeys(("recorded", "raw", "dropped", "stored_bytes", "bytes"), 0)
        self._digits = grid.digits_of(precision)
        self._segment = Segment(-1, "")
        self._journal = attempt / "journal.jsonl"
        self._syncer = Syncer(self._journal, failed)
        # A writer that was restarted goes on where the one before it stopped.
        self._done = {record.get("step"): record for record in journal.read(self._journal).records}
        for record in self._done.values():
            kind = "raw" if record.get("was_raw") else str(record.get("kind"))
            self._count(kind, _size_in(record), 0)

    def write(
        self, number: int, step: int, layout: Layout, vectors: Vectors, scalars: Mapping[str, Any]
    ) -> bool:
        """Store one checkpoint; number: how many of the attempt came before it, stored or not.

        False where the journal has a line of the step already.
        """
        if step in self._done:
            return False
        segment = self._segment
        if not segment.holds(number, step, layout):
            self._syncer.flush()
            segment = Segment(number, layout.key)
        # The caller's memory is used again, and the next ones are coded against these.
        exact = vectors = {dtype: vector.copy() for dtype, vector in vectors.items()}
        extra, meta = dict(scalars), dict[str, str]()
        if self._digits is not None:
            segment, vectors = on_grid(segment, number, layout, vectors, self._digits)
            meta, told = grid.told_errors(layout, exact, vectors)
            extra.update(told)
        meta |= {"segment": str(segment.first), "index": str(number - segment.first)}
        coded = (segment.before, meta, segment.grid)
        done = checkpoint.write_encoded(self.attempt, step, layout, vectors, *coded, sync=False)
        self._append("checkpoint", step, done, extra)
        self._count("checkpoint", done.size, layout.nbytes)
        self._segment = segment.after(step, vectors)
        return True

    def adopt_raw(self, layout_of: Callable[[str], Layout]) -> None:
        """Journal every raw file that has no line yet; one that is damaged counts as dropped.

        One that cannot be read now gets no line, and is looked at again: raises why, at the end.
        """
        unread: Exception | None = None
        for step, path in rawfile.listed(self.attempt, self._done):
            try:
                done, scalars, size = rawfile.read(path, layout_of)
            except OSError as error:
                unread = error
            except NdtError as error:
                if UNREAD in error.what:  # its tensor table
                    unread = error
                else:
                    self.drop(step, {"reason": error.what})
            else:
                self._append("raw", step, done, scalars)
                self._count("raw", done.size, size)
        if unread is not None:
            raise unread

    def drop(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Say that the weights of a step were not stored."""
        if step not in self._done:
            self._line({"kind": "dropped", "step": step, **scalars})
            self._count("dropped", 0, 0)

    def close(self, said: Mapping[str, Any] | None = None) -> None:
        """Everything durable, then the line that says so; None: another writer goes on."""
        self._syncer.flush()
        if said is not None:
            self._line({"kind": "close", **self.counts, **said})
            self._syncer.add(self._journal)
        self._syncer.close()

    def _append(self, kind: str, step: int, done: Written, scalars: Mapping[str, Any]) -> None:
        what = {"file": done.file, "size": done.size, "file_crc": done.file_crc}
        self._line({"kind": kind, "step": step, **what, "content": done.content, **scalars})
        self._syncer.add(self.attempt / done.file)

    def _line(self, record: dict[str, Any]) -> None:
        record = {**record, "time": round(time.time(), 3)}
        journal.append(self._journal, record, sync=False)
        self._done[record.get("step")] = record

    def _count(self, kind: str, stored: int, plain: int) -> None:
        name = "recorded" if kind in ("checkpoint", "packed") else kind
        if name in self.counts:
            self.counts[name] += 1
            self.counts["stored_bytes"] += stored
            self.counts["bytes"] += plain


def _size_in(record: journal.Record) -> int:
    size = record.get("size")
    return size if isinstance(size, int) else 0
