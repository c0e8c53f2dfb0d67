"""Measures of a row that look at other rows: which ones, and the mark that says so. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndt_offline.extension import source_of
from ndt_offline.measure.plugin import FORWARD, Measure
from ndt_offline.replay.mark import BACK, known_as
from ndt_offline.run.attempt import Entry
from ndt_offline.run.identity import fingerprint

VERSION = 1  # raised when the numbers of every measure change
LAST = -1
CHAIN = 8  # rows whose curvature is started from that of the row before; divides every block
_BACK = {"previous": 1, "before_previous": BACK}


@dataclass(frozen=True)
class Spot:
    """Where in a run a checkpoint is: its row, the updates since the row before, and a way to
    the tensors of a row shortly before it, None where that cannot be read."""

    row: int
    updates: int
    earlier: Callable[[int], Any]


def depends(measure: Measure) -> tuple[str, ...]:
    """The spaces whose identity is part of the measure's: the graph and probe stand in one."""
    own = {measure.space} & {"activations", "weights"}
    return tuple(sorted(own | ({"activations"} if measure.needs & FORWARD else set())))


def measure_key(spec: str, measure: Measure, spaces: Mapping[str, str]) -> str:
    """Identity of what a measure computes, from its parameters and those of what it looks at.

    spaces: the identity of each space as the store keeps it. Nothing is read for it.
    """
    known = [spaces.get(name) for name in depends(measure)]
    text = (source_of(spec) or "") if ":" in spec else ""
    about = (measure.version, dict(measure.params), measure.names, sorted(measure.needs))
    return f"{fingerprint(VERSION, measure.name, about, text, known):016x}"


def rows_behind(measure: Measure, row: int) -> dict[str, int]:
    """{need: row} of the other rows that a row's numbers come from; -1 is the last of the run."""
    rows = {need: row - back for need, back in _BACK.items() if need in measure.needs}
    rows = {need: at for need, at in rows.items() if at >= 0}
    if "curvature" in measure.needs:
        rows |= {f"chain {at}": at for at in range(row - row % CHAIN, row)}
    ends = {"first": 0, "last": LAST}
    return rows | {need: at for need, at in ends.items() if need in measure.needs}


def measure_mark(key: str, entry: Entry, behind: Sequence[Entry]) -> int:
    """What a row of a measure was computed from: its key, the checkpoint, those behind it."""
    return fingerprint(key, [(e.step, known_as(e)) for e in (entry, *behind)])


def lacking_mark(mark: int, windows: Iterable[Sequence[Entry]]) -> int:
    """The mark of a row that lacks something: when a file behind it changes, try again.

    windows: of the row and of each row behind it, its entry, last, and those it may build on.
    """
    stamps = [[entry.stamp() for entry in window] for window in windows]
    return fingerprint("lacking", mark, stamps)
