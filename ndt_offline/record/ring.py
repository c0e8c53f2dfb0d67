"""The ring: shared memory through which checkpoints go from the trainer to the writer.

    control    64 integers (`FIELDS`), a text of the writer, a text of the trainer
    slot       state, number, step, length of its text | text | the vectors, each on 64 bytes

One trainer publishes, one writer frees; a slot's state is stored last and read first. The memory
is allocated for good before anything is stored in it: a sparse file on a full device is a SIGBUS.
No torch: the writer uses this too.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import sys
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ndt_offline.run.layout import Layout, Vectors

FIELDS = (
    "slots", "payload", "closing", "final", "raw", "recorded", "raw_done", "dropped",
    "stored_bytes", "bytes", "failures", "finished", "ready", "asleep",
)  # fmt: skip
_AT = {field: place for place, field in enumerate(FIELDS)}
FREE, CLAIMED, READY = 0, 1, 2
TEXT = 16 * 1024
CONTROL = 512 + 2 * TEXT
HEAD = 64 + TEXT
ALIGN = 64


class Ring:
    """A ring in a mapped file; made by the trainer, opened by the writer by its descriptor."""

    def __init__(self, handle: int, memory: mmap.mmap, slots: int, payload: int) -> None:
        self.handle, self.memory = handle, memory
        self.slots, self.payload = slots, payload
        self._views: dict[tuple[int, str], Vectors] = {}
        self._stride = HEAD + _aligned(payload)
        # Not arrays: one integer of an array costs ten times as much to read.
        self._fields = memoryview(memory)[:512].cast("q")
        starts = [CONTROL + slot * self._stride for slot in range(slots)]
        self._heads = [memoryview(memory)[at : at + 64].cast("q") for at in starts]

    @classmethod
    def make(cls, slots: int, payload: int, fallback: Path | None) -> Ring:
        """Allocate and map; OSError where there is no room. No fallback: for a thread alone."""
        size = CONTROL + slots * (HEAD + _aligned(payload))
        place = (-1, mmap.mmap(-1, size)) if fallback is None else _allocated(size, fallback)
        ring = cls(*place, slots, payload)
        ring["slots"], ring["payload"] = slots, payload
        return ring

    @classmethod
    def open(cls, handle: int) -> Ring:
        memory = mmap.mmap(handle, os.fstat(handle).st_size)
        slots, payload = memoryview(memory)[:16].cast("q")
        return cls(handle, memory, slots, payload)

    def __getitem__(self, field: str) -> int:
        return self._fields[_AT[field]]

    def __setitem__(self, field: str, value: int) -> None:
        self._fields[_AT[field]] = value

    @property
    def shared(self) -> bool:
        """Whether another process can open it."""
        return self.handle >= 0

    def claim(self) -> int | None:
        """A free slot for the trainer, or None: the ring is full."""
        for slot, head in enumerate(self._heads):
            if head[0] == FREE:
                head[0] = CLAIMED
                return slot
        return None

    def reclaim(self, used: Container[int]) -> None:
        """Free what was claimed and is not used: an interrupt came between."""
        for slot, head in enumerate(self._heads):
            if head[0] == CLAIMED and slot not in used:
                head[0] = FREE

    def publish(self, slot: int, number: int, step: int, words: Mapping[str, Any]) -> bool:
        """Hand a filled slot over; False where its words do not fit (the slot stays claimed)."""
        text = json.dumps(words).encode()
        if len(text) > TEXT:
            return False
        head = self._heads[slot]
        start = CONTROL + slot * self._stride + 64
        self.memory[start : start + len(text)] = text
        head[1], head[2], head[3] = number, step, len(text)
        head[0] = READY
        return True

    def free(self, slot: int) -> None:
        self._heads[slot][0] = FREE

    def give_up(self, slot: int) -> None:
        """Free a slot that was claimed, not one that the writer may be reading already."""
        if self._heads[slot][0] == CLAIMED:
            self.free(slot)

    def waiting(self) -> list[int]:
        """Slots that were handed over, in the order of their numbers.

        Two looks: the trainer may publish while one goes on, an early slot behind it and a later
        one before it. What came before anything in the first look is in the second.
        """
        if not self._ready():
            return []
        return sorted(self._ready(), key=lambda slot: self._heads[slot][1])

    def _ready(self) -> list[int]:
        return [slot for slot, head in enumerate(self._heads) if head[0] == READY]

    def words(self, slot: int) -> tuple[int, int, dict[str, Any]]:
        """Number, step and words of a slot that was handed over."""
        _, number, step, length = self._heads[slot][:4]
        start = CONTROL + slot * self._stride + 64
        return number, step, json.loads(self.memory[start : start + length])

    def vectors(self, slot: int, layout: Layout) -> Vectors | None:
        """Views into a slot, one per dtype; None where the layout needs more room."""
        if room(layout) > self.payload:
            return None
        if (slot, layout.key) in self._views:
            return self._views[slot, layout.key]
        views: Vectors = {}
        at = 0
        start = CONTROL + slot * self._stride + HEAD
        for dtype, size in layout.sizes.items():
            views[dtype] = np.frombuffer(self.memory, np.uint8, size, start + at)
            at += _aligned(size)
        self._views[slot, layout.key] = views
        return views

    def say(self, who: int, words: Any) -> None:
        """Leave a text for the other side: who is 0 for the writer, 1 for the trainer."""
        text = json.dumps(words).encode()
        if len(text) > TEXT - 8:  # a cut text is none; the last resort is the least
            text = json.dumps(words[:1000] if isinstance(words, str) else {}).encode()
        start = 512 + who * TEXT
        self.memory[start + 8 : start + 8 + len(text)] = text
        self.memory[start : start + 8] = len(text).to_bytes(8, "little")

    def said(self, who: int) -> Any:
        start = 512 + who * TEXT
        length = int.from_bytes(self.memory[start : start + 8], "little")
        with contextlib.suppress(ValueError):
            return json.loads(self.memory[start + 8 : start + 8 + length])
        return None

    def close(self) -> None:
        # The mapping itself goes with the last view into it.
        if self.shared:
            os.close(self.handle)


def room(layout: Layout) -> int:
    """Bytes of a slot that holds checkpoints of this table."""
    return sum(_aligned(size) for size in layout.sizes.values())


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _allocated(size: int, fallback: Path) -> tuple[int, mmap.mmap]:
    """A descriptor and its memory: anonymous where the system can, else a file without a name."""
    problem = OSError("no shared memory")
    for handle in _files(fallback):
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                _fill(handle, size)
            flags = {"flags": mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)}
            return handle, mmap.mmap(handle, size, **(flags if sys.platform != "win32" else {}))
        except (OSError, ValueError) as error:
            os.close(handle)
            problem = error if isinstance(error, OSError) else OSError(str(error))
    raise problem


def _files(fallback: Path) -> Iterator[int]:
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            yield os.memfd_create("ndt-offline-ring")
    handle = os.open(fallback, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with contextlib.suppress(OSError):  # not everywhere can an open file be removed
        fallback.unlink()
    yield handle


def _fill(handle: int, size: int) -> None:
    zeros = bytes(2**20)
    for at in range(0, size, len(zeros)):
        os.write(handle, zeros[: size - at])
