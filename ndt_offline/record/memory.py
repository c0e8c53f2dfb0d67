"""The memory of a ring: the best that the machine gives, and what is said where that is little."""

from __future__ import annotations

from pathlib import Path

from ndt_offline.record.ring import Ring, room
from ndt_offline.run.layout import Layout

RING_BYTES, MOST, LEAST = 256 * 2**20, 8, 2
NO_PROCESS = (
    "no memory can be shared with a process of its own ({}; a limit of file sizes, as `ulimit -f` "
    "shows, or of memory?), so a thread of the training writes, which slows it"
)
NO_WRITER = (
    "there is no memory for a writer ({}): checkpoints are written as they are, and are no part of "
    "the run before `ndt-offline pack` or the next start takes them in"
)


def find_ring(layout: Layout, file: Path) -> tuple[Ring | None, str]:
    """A ring that a process can share, else memory for a thread, else None; and what hindered.

    Without room for a checkpoint every one goes raw; the writer still journals them.
    """
    size, why = max(room(layout), 64), ""
    full = min(max(RING_BYTES // size, LEAST), MOST), size
    for count, payload, place in ((*full, file), (1, 64, file), (*full, None), (1, 64, None)):
        try:
            return Ring.make(count, payload, place), why
        except (OSError, MemoryError) as error:
            why = why or str(error) or type(error).__name__
    return None, why
