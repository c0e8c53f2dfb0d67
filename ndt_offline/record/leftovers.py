"""What dead attempts left behind: temporary files swept, raw files taken in, then coded.

An attempt whose writer still works is left alone: its lock says so.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ndt_offline.errors import NdtError
from ndt_offline.record import rawfile
from ndt_offline.record.writer import Writer
from ndt_offline.run import durable, journal
from ndt_offline.run.attempt import folders, read_attempt
from ndt_offline.run.deferred import code_raw
from ndt_offline.run.lock import Lock
from ndt_offline.run.reader import read_layout


def take_over(attempts: Path, before: int) -> None:
    """Clean up after every dead attempt with a lower number."""
    for attempt in folders(attempts.parent):
        if int(attempt.name) >= before:
            continue
        lock = Lock(attempt / "writer.lock")
        with contextlib.suppress(OSError, NdtError):
            if lock.take():
                try:
                    _clean(attempt)
                finally:
                    lock.drop()


def _clean(attempt: Path) -> None:
    for folder in (attempt, attempt / "checkpoints", attempt / "raw"):
        if folder.resolve() == attempt.parent.resolve() / folder.relative_to(attempt.parent):
            for litter in folder.glob(f"*{durable.LITTER}"):
                litter.unlink(missing_ok=True)
    known = {r.get("step") for r in journal.read(attempt / "journal.jsonl").records}
    if rawfile.listed(attempt, known):
        layouts = attempt.parent.parent / "layouts"
        writer = Writer(attempt)
        writer.adopt_raw(lambda key: read_layout(layouts / f"{key}.json"))
        writer.close()
    for _ in code_raw(attempt):
        pass
    if not read_attempt(attempt).closed:
        Writer(attempt).close({"trainer": "died", "taken_over": True})
