"""Blocks of rows, what a finished one reports, and the mark that a row is done. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from ndt_offline.run.attempt import Entry
from ndt_offline.run.identity import fingerprint


@dataclass(frozen=True)
class Block:
    """Rows [start, stop) of the store; `entries` are theirs, `before` what they may build on."""

    start: int
    stop: int
    entries: tuple[Entry, ...]
    before: tuple[Entry, ...]
    todo: tuple[int, ...]  # rows to compute, the others are done


@dataclass(frozen=True)
class BlockReport:
    """What a finished block tells the driver."""

    start: int
    rows: int
    seconds: float
    problems: tuple[tuple[int, str], ...]  # (step, what)


def row_fingerprint(key: int, entry: Entry) -> int:
    """What a row was computed from: the replay's key and the checkpoint's content.

    For files that others wrote, size and time stand for the content: nothing is read to know
    that nothing is to do.
    """
    known = entry.content if entry.content is not None else entry.stamp()
    return fingerprint(key, entry.step, known)
