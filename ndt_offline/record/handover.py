"""The trainer's end of the ring: publish, or write raw; start the writer, and restart it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndt_offline.record import rawfile
from ndt_offline.record.memory import NO_PROCESS, NO_WRITER, find_ring
from ndt_offline.record.ring import Ring, room
from ndt_offline.record.writer_process import Service, sleeper
from ndt_offline.run.layout import Layout, Vectors

RESTARTS = 3
LOOK = 0.05  # seconds between looks whether the writer lives: each is a system call
STARTING = 3.0  # seconds that the start waits for the writer's, lest the first ones go raw
# Not `-m`: the writer must see the parent's sys.path before it imports anything of ours.
START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    "from ndt_offline.record.writer_process import main; main(sys.argv[2:])"
)


class Handover:
    """Moves checkpoints of one attempt out of the training loop.

    thread: serve the ring from a thread of this process instead of a process of its own.
    """

    def __init__(
        self, attempt: Path, layout: Layout, precision: str | None, thread: bool = False
    ) -> None:
        self.attempt, self._precision, self._thread_wanted = attempt, precision, thread
        self.raw, self.restarts, self.totals = 0, 0, dict[str, int]()
        self._failure = 0, ""  # of a ring that is closed
        self.ring: Ring | None = None
        self._raw_only, self._look_again = False, 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._pipe = -1
        self._open(layout)

    def await_writer(self) -> None:
        """Wait until the writer serves, not for long."""
        end = time.monotonic() + STARTING
        while self.ring is not None and not self.ring["ready"] and time.monotonic() < end:
            time.sleep(0.005)

    def claim(self, layout: Layout) -> tuple[int, Vectors] | None:
        """A free slot and views into it; None: write this one raw."""
        ring = self.ring
        if ring is None:
            return None
        if self._raw_only:
            self._revive()
            return None
        if room(layout) > ring.payload:
            self.stop(final=False)
            self._open(layout)
            return self.claim(layout) if self.ring else None
        self._revive()
        slot = ring.claim()
        if slot is None:
            return None
        views = ring.vectors(slot, layout)
        return None if views is None else (slot, views)

    def publish(self, slot: int, number: int, step: int, words: Mapping[str, Any]) -> bool:
        """Hand over a filled slot: from here on the checkpoint survives the trainer.

        False where the words have no room; the slot is then still the trainer's.
        """
        assert self.ring is not None
        published = self.ring.publish(slot, number, step, words)
        if published:
            self._poke()
        return published

    def write_slot(self, slot: int, step: int, layout: Layout, record: Mapping[str, Any]) -> None:
        """Write a filled slot raw instead of publishing it."""
        assert self.ring is not None
        vectors = self.ring.vectors(slot, layout)
        try:
            if vectors is not None:
                self.write_raw(step, layout, vectors, record)
        finally:
            self.ring.free(slot)

    def give_up(self, slot: int) -> None:
        if self.ring is not None:
            self.ring.give_up(slot)

    def write_raw(
        self, step: int, layout: Layout, vectors: Vectors, record: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint from the training process itself, and tell the writer."""
        size = rawfile.write(self.attempt, step, layout, vectors, record)
        self.raw += 1
        if self.ring is not None:
            self.ring["raw"] += 1
            self._poke()
        else:
            for name, n in (("stored_bytes", size), ("bytes", layout.nbytes)):
                self.totals[name] = self.totals.get(name, 0) + n

    @property
    def defers(self) -> bool:
        """Whether raw checkpoints are coded later: by a process, not by a thread of this one."""
        return not self._thread_wanted

    def failure(self, seen: int) -> tuple[int, str]:
        """Failures of the writer so far, and the text of the last one where it is new."""
        if self.ring is None:
            return self._failure
        count = self.ring["failures"]
        return count, str(self.ring.said(0)) if count > seen else ""

    def stop(
        self, final: bool = True, said: Mapping[str, Any] | None = None, patience: float = 120.0
    ) -> bool:
        """Tell the writer to finish and wait for it; False where it is still at work."""
        if self.ring is None:
            return True
        if said is not None:
            self.ring.say(1, said)
        self.ring["final"] = int(final)
        self.ring["closing"] = self.ring["asleep"] = 1  # told whether it sleeps or not
        self._poke()
        done = self._wait(patience)
        self._failure = self.failure(0)
        names = ("recorded", "raw_done", "dropped", "stored_bytes", "bytes")
        self.totals = {name: self.ring[name] for name in names}
        if self._pipe >= 0:
            os.close(self._pipe)
        if self._thread is None or done:
            self.ring.close()
        self.ring, self._process, self._thread, self._pipe = None, None, None, -1
        return done

    def _open(self, layout: Layout) -> None:
        self.ring, why = find_ring(layout, self.attempt / "ring")
        if self.ring is None:
            self._failure = self._failure[0] + 1, NO_WRITER.format(why)
            return
        self._raw_only = self.ring.payload < room(layout)
        # Of the ring before this one: what its writer's journal does not say.
        self.ring["bytes"], self.ring["raw"] = self.totals.get("bytes", 0), self.raw
        self.ring["failures"] = self._failure[0]
        if not (self.ring.shared or self._thread_wanted):
            self._thread_wanted = True
            self.ring.say(0, NO_PROCESS.format(why))
            self.ring["failures"] += 1
        try:
            self._start_writer(self.ring)
        except OSError as error:
            self.ring, self._failure = None, (self._failure[0] + 1, NO_WRITER.format(error))

    def _start_writer(self, ring: Ring) -> None:
        if not self._thread_wanted and sys.executable and sys.platform != "win32":
            with contextlib.suppress(OSError, ValueError):
                self._start_process(ring)
                return
        self._thread_wanted = True
        self._start_thread(ring)

    def _start_process(self, ring: Ring) -> None:
        read = self._new_pipe()
        told = {
            "ring": ring.handle,
            "pipe": read,
            "attempt": str(self.attempt.resolve()),
            "trainer": os.getpid(),
            "precision": self._precision,
        }
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        try:
            with (self.attempt / "writer.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", START, path, json.dumps(told)],
                    pass_fds=(ring.handle, read),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                )
        finally:
            os.close(read)

    def _start_thread(self, ring: Ring) -> None:
        service = Service(ring, self.attempt, self._precision)
        # Not an Event: one whose `set` was broken off by Ctrl-C may keep its lock for good.
        read = self._new_pipe()

        def run() -> None:
            try:
                service.run(sleeper(read), lambda: True)
            finally:
                os.close(read)

        self._thread = threading.Thread(target=run, daemon=True, name="ndt-offline-writer")
        self._thread.start()

    def _new_pipe(self) -> int:
        """The end that a writer waits at; ours is kept in place of the one before."""
        read, write = os.pipe()
        if sys.platform != "win32":
            os.set_blocking(write, False)
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = write
        return read

    def _revive(self) -> None:
        """Start the writer again if it died; a thread after that happened too often."""
        if self._process is None or self.ring is None or time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + LOOK
        if self._process.poll() is None:
            return
        self.restarts += 1
        self._process = None
        self._thread_wanted |= self.restarts > RESTARTS
        self._start_writer(self.ring)

    def _poke(self) -> None:
        # Missed while it falls asleep: it looks by itself after a while.
        if self.ring is None or not self.ring["asleep"]:
            return
        if self._pipe >= 0:
            with contextlib.suppress(OSError):  # full: the writer has enough to read
                os.write(self._pipe, b"+")

    def _wait(self, patience: float) -> bool:
        """Until the writer is done; one that dies meanwhile is followed by another."""
        assert self.ring is not None
        end = time.monotonic() + patience
        while time.monotonic() < end and self._process is not None:
            dead = self._process.poll() is not None
            if self.ring["finished"]:
                return True
            if dead and self.restarts > RESTARTS:
                return False
            if dead:
                self.restarts += 1
                self._process = None
                self._start_writer(self.ring)
            time.sleep(0.002)
        if self._thread is not None:
            self._thread.join(max(end - time.monotonic(), 0.0))
            return not self._thread.is_alive()
        return False
