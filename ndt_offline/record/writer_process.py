"""The writer as a process of its own: serves the ring until its trainer is done, or dead.

Low priority: it takes what training leaves. In its own session and deaf to SIGINT and SIGTERM:
what was handed over is finished when the trainer is interrupted. Loads no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ndt_offline.errors import NdtError
from ndt_offline.heap import keep_freed
from ndt_offline.record import priority
from ndt_offline.record.dropped import rest_of
from ndt_offline.record.leftovers import sweep, take_over
from ndt_offline.record.ring import Ring
from ndt_offline.record.writer import Writer
from ndt_offline.run.attempt import read_attempt
from ndt_offline.run.deferred import code_raw
from ndt_offline.run.grid import digits_of
from ndt_offline.run.layout import Layout
from ndt_offline.run.lock import Lock
from ndt_offline.run.reader import read_layout

PAUSE = 2.0  # seconds without a checkpoint: time to code what was written raw
AWAKE, NAP = 0.02, 0.001  # seconds after a checkpoint without deep sleep, and of a nap
IDLE = 0.5  # seconds between looks at the trainer
PATIENCE = 5  # tries for a checkpoint once the trainer is gone


class Service:
    """Moves checkpoints from a ring into an attempt.

    defer: code raw checkpoints while training pauses, and before the end is said.
    """

    def __init__(
        self, ring: Ring, attempt: Path, precision: str | None, defer: bool = False
    ) -> None:
        self.ring, self.attempt, self.defer = ring, attempt, defer
        self._coding: Iterator[int] | None = None
        self._digits = digits_of(precision)
        self._worked, self._coded = time.monotonic(), 0
        self.writer = Writer(attempt, precision, self.failed)
        self._layouts: dict[str, Layout] = {}
        self._raw_seen = self._tries = 0
        self._stuck = False  # raw files could not be taken in: tried again, not at once
        self.writer.counts["bytes"] = ring["bytes"]  # of a writer that died before this one
        self._told()

    def run(
        self,
        wait: Callable[[float], None],
        alive: Callable[[], bool],
        hurry: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Serve until the trainer closed or died and nothing is left to do.

        hurry: called when the trainer waits, again until it says True.
        Returns False where another writer of this attempt goes on.
        """
        self.ring["ready"] = 1
        hurried = False
        while True:
            closing = bool(self.ring["closing"])
            ending = closing or not alive()
            hurried = hurried or (closing and hurry())
            worked = self.serve(ending)
            if ending and not self.ring.waiting():
                break
            if not worked and not self._code_raw():
                self._sleep(wait)
        return self.finish()

    def serve(self, ending: bool) -> bool:
        """One round; whether anything was done."""
        waiting = self.ring.waiting()
        worked = bool(waiting) and self._store(waiting[0], ending)
        raw = self.ring["raw"]
        if raw != self._raw_seen:
            self._stuck = not self._guarded(self._adopt)
            self._raw_seen = self._raw_seen if self._stuck else raw
            worked = worked or not self._stuck
        self._told()
        if worked:
            self._worked = time.monotonic()
        return worked

    def finish(self) -> bool:
        """Raw files, coded; the last line: how the trainer ended, what it could not hand over."""
        self._patiently(self._adopt)  # a trainer that died may not have told of its last one
        closed = bool(self.ring["closing"])
        if not closed:
            self._guarded(partial(sweep, self.attempt))
        final = not closed or bool(self.ring["final"])
        said = self.ring.said(1) if closed else None
        said = said if isinstance(said, dict) else {}
        for step, scalars in rest_of(said):
            self._patiently(partial(self.writer.drop, step, scalars))
        # Before the end is said: who copies or reads a run that is closed finds it at rest. Not
        # while a training waits for a larger ring.
        if self.defer and final:
            self._guarded(self._code_all)  # full: the next start goes on
            self._guarded(self._weigh)
        end = {"trainer": "closed" if closed else "died", **said}
        self._patiently(lambda: self.writer.close(end if final else None))
        self._told()
        log = self.attempt / "writer.log"
        with contextlib.suppress(OSError):
            if not log.stat().st_size:
                log.unlink()
        self.ring["finished"] = 1
        return final

    def _code_raw(self) -> bool:
        """In a pause of the training: code one of the raw checkpoints; whether there was one."""
        if not self.defer or time.monotonic() - self._worked < PAUSE:
            return False
        raws = self.writer.counts["raw"]  # taken in: others are not in the journal that is read
        if self._coding is None and raws > self._coded:
            self._coding, self._coded = code_raw(self.attempt, self._digits), raws
        if self._coding is None:
            return False
        found = list[int]()
        self._guarded(lambda: found.extend(islice(self._coding, 1)))  # type: ignore[arg-type]
        if not found:
            self._coding = None
            self._guarded(self._weigh)
        return bool(found)

    def _code_all(self) -> None:
        for _ in code_raw(self.attempt, self._digits):
            pass

    def _weigh(self) -> None:
        """The stored bytes as the journal has them: raw checkpoints that were coded are smaller."""
        entries = read_attempt(self.attempt).entries.values()
        self.writer.counts["stored_bytes"] = sum(entry.size or 0 for entry in entries)

    def _sleep(self, wait: Callable[[float], None]) -> None:
        if time.monotonic() - self._worked < AWAKE and not self._tries:
            return wait(NAP)  # waking us costs the training more than this costs us
        self.ring["asleep"] = 1  # before the last look: what comes after it wakes us
        news = self.ring.waiting() or self.ring["raw"] != self._raw_seen or self.ring["closing"]
        if self._tries or self._stuck or not news:
            wait(min(IDLE, 0.05 * 2**self._tries) if self._tries else IDLE)
        self.ring["asleep"] = 0
        return None

    def failed(self, error: Exception) -> None:
        self.ring.say(0, str(error) or type(error).__name__)
        self.ring["failures"] += 1

    def layout(self, key: str) -> Layout:
        if key not in self._layouts:
            path = self.attempt.parent.parent / "layouts" / f"{key}.json"
            self._layouts[key] = read_layout(path)
        return self._layouts[key]

    def _store(self, slot: int, ending: bool) -> bool:
        number, step, words = self.ring.words(slot)
        for lost, scalars in words.pop("dropped", []):
            self._guarded(partial(self.writer.drop, lost, scalars))
        if not self._guarded(lambda: self._write(slot, number, step, words)):
            self._tries += 1
            if not ending or self._tries < PATIENCE:
                return False  # the slot stays: tried again after a pause
            self._guarded(lambda: self.writer.drop(step, words.get("record", {})))
        self._tries = 0
        self.ring.free(slot)
        return True

    def _write(self, slot: int, number: int, step: int, words: Mapping[str, Any]) -> None:
        layout = self.layout(words["layout"])
        vectors = self.ring.vectors(slot, layout)
        if vectors is None:
            raise NdtError("the slot is smaller than its checkpoint", step=step)
        self.writer.write(number, step, layout, vectors, words["record"])

    def _adopt(self) -> None:
        self.writer.adopt_raw(self.layout)

    def _patiently(self, act: Callable[[], None]) -> None:
        for again in range(PATIENCE):
            if self._guarded(act):
                return
            time.sleep(0.05 * 2**again)

    def _guarded(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except Exception as error:
            self.failed(error)
            return False
        return True

    def _told(self) -> None:
        counts = self.writer.counts
        for name in ("recorded", "dropped", "stored_bytes", "bytes"):
            self.ring[name] = counts[name]
        self.ring["raw_done"] = counts["raw"]


def sleeper(pipe: int) -> Callable[[float], None]:
    """What waits so many seconds, or until the trainer writes into the pipe."""
    if sys.platform == "win32":  # nothing there waits for a pipe and a clock
        return lambda seconds: time.sleep(min(seconds, AWAKE))
    news = select.poll()  # `select` takes the first 1024 descriptors of a process only
    news.register(pipe, select.POLLIN)

    def wait(seconds: float) -> None:
        if news.poll(1000 * seconds) and not os.read(pipe, 4096):
            time.sleep(min(seconds, 0.05))  # the other end is gone: its parent id will tell

    return wait


def main(arguments: list[str]) -> None:
    """Arguments: one JSON object with descriptors, the attempt's folder, the trainer's id."""
    told = json.loads(arguments[0])
    _behave()
    keep_freed()
    attempt = Path(told["attempt"])
    lock = Lock(attempt / "writer.lock")
    while not lock.take():  # the one before it in this attempt is still at work
        time.sleep(0.05)
    service = Service(Ring.open(told["ring"]), attempt, told["precision"], defer=True)
    priority.lower()  # not before: the training waits for the imports above
    wait = sleeper(told["pipe"])
    if not service.run(wait, lambda: os.getppid() == told["trainer"], priority.restore):
        return  # the next one waits for the lock
    priority.lower()
    try:
        take_over(attempt.parent, before=int(attempt.name))
    except Exception:  # the log is gone where nothing stood in it
        with (attempt / "writer.log").open("a") as log:
            traceback.print_exc(file=log)


def _behave() -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


if __name__ == "__main__":
    main(sys.argv[1:])
