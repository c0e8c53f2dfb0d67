"""Blocks of rows, what a finished one reports, and the marks that a row is done. No torch.

A row has a mark for the whole replay (`records/spectra`) and one per space
(`records/measured`): where only the layers of one space changed, the other space stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ndt_offline.replay.setup import MEASURE_VERSION, UPCAST_VERSION, Setup
from ndt_offline.run.attempt import Entry
from ndt_offline.run.identity import fingerprint, sha256_file
from ndt_offline.storage.location import locate

SEGMENT = 32  # a checkpoint builds on at most this many before it
BACK = 2  # rows before its own that a measure may look at
_NONE: dict[str, float] = {}


@dataclass(frozen=True)
class Block:
    """Rows [start, stop) of the store; `entries` are theirs.

    before: what they, and the rows before them that a measure looks at, may build on.
    """

    start: int
    stop: int
    entries: tuple[Entry, ...]
    before: tuple[Entry, ...]
    todo: tuple[int, ...]  # rows to compute, the others are done
    given_up: tuple[tuple[int, str], ...] = ()  # (row, why): recorded as failed, not tried
    ends: tuple[Entry, ...] = ()  # the run's first row, and its last after what that builds on

    @classmethod
    def of(
        cls,
        entries: Sequence[Entry],
        start: int,
        stop: int,
        todo: Sequence[int],
        ends: bool = False,
    ) -> Block:
        """The block of these rows, with what it needs and no more: it travels to workers."""
        at = min(start, SEGMENT + BACK)
        light = [replace(e, scalars=_NONE) for e in entries[start - at : stop]]
        far = [replace(e, scalars={}) for e in (entries[0], *entries[-SEGMENT - 1 :])]
        outside = tuple(far) if ends else ()
        return cls(start, stop, tuple(light[at:]), tuple(light[:at]), tuple(todo), ends=outside)

    def entry(self, row: int) -> Entry | None:
        """The entry of a row of this block, or of one shortly before it."""
        at = len(self.before) + row - self.start
        return (*self.before, *self.entries)[at] if row >= 0 <= at else None

    def window(self, row: int) -> tuple[Entry, ...]:
        """The entry of a row and those it may build on."""
        known = (*self.before, *self.entries)
        at = len(self.before) + row - self.start
        return known[max(0, at - SEGMENT) : at + 1]


@dataclass(frozen=True)
class BlockReport:
    """What a finished block tells the driver."""

    start: int
    rows: int
    seconds: float
    problems: tuple[tuple[int, str], ...]  # (step, what)
    peak: int = 0  # bytes of memory that its process has used at most


def row_mark(key: int, entry: Entry) -> int:
    """What a row was computed from: the replay's key and the checkpoint's content.

    For files that others wrote, size and time stand for the content: nothing is read to know
    that nothing is to do.
    """
    return fingerprint(key, entry.step, known_as(entry))


def known_as(entry: Entry) -> object:
    """What a checkpoint is known by."""
    return entry.content if entry.content is not None else entry.stamp()


def bad_mark(key: int, window: Sequence[Entry]) -> int:
    """The mark of a row that could not be used: when a file behind it changes, try again.

    window: the row's entry, last, and those it may build on.
    """
    stamps = [entry.stamp() for entry in window]
    return fingerprint(key, "bad", row_mark(key, window[-1]), stamps)


# What the reader, the replay and whoever watches a process say of a fault that can pass.
_PASSING = re.compile(
    r": (cannot be read: |MemoryError: |.*\bkilled by SIG(KILL|XCPU)|no end after |"
    r".*(can't|cannot|not enough|unable to) (allocate )?memory)"
)


def is_passing(problem: str) -> bool:
    """Whether a row's problem may be gone tomorrow: input and output, memory, a limit of time.

    What the file itself says, and what ends a process by a fault of its own, stays as it is.
    """
    return _PASSING.search(problem) is not None


def space_keys(setup: Setup) -> dict[str, int]:
    """Identity of what is measured in each space: the layers themselves, not how they were named.

    Two replays with the same key of a space give the same numbers there.
    """
    chosen = setup.parameters
    run = locate(setup.run)
    files = [run / "graph.json", run / "graph.safetensors"]
    files.append(locate(chosen.probe) if chosen.probe else run / "probe.safetensors")
    if setup.config:
        files.append(locate(setup.config))
    hashes = [sha256_file(path) if path.is_file() else None for path in files]
    both = (MEASURE_VERSION, chosen.center, chosen.upcast and UPCAST_VERSION)
    forward = (hashes, chosen.model, setup.loss, [asdict(x) for x in setup.activations])
    layers = [asdict(layer) for layer in setup.spaces[1].layers]
    return {
        "activations": fingerprint(*both, "activations", *forward),
        "weights": fingerprint(*both, "weights", layers),
    }
