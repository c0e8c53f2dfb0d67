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
from ndt_offline.run.maintain import alone
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
                    clean(attempt)
                finally:
                    lock.drop()


def take_in(run: Path) -> None:
    """Clean up after every attempt of a run whose raw files no writer has journaled.

    UsageError where a training is at work.
    """
    missing = [attempt for attempt in folders(run) if _unjournaled(attempt)]
    if missing:
        with alone(run):
            for attempt in missing:
                clean(attempt)


def _unjournaled(attempt: Path) -> bool:
    records = journal.read(attempt / "journal.jsonl").records
    return bool(rawfile.listed(attempt, {record.get("step") for record in records}))


def sweep(attempt: Path) -> None:
    """Remove what was never finished, of an attempt whose trainer is dead."""
    for folder in (attempt, attempt / "checkpoints", attempt / "raw"):
        if folder.resolve() == attempt.parent.resolve() / folder.relative_to(attempt.parent):
            for litter in folder.glob(f"*{durable.LITTER}"):
                litter.unlink(missing_ok=True)


def clean(attempt: Path) -> None:
    """Clean up after one attempt, whose writer's lock the caller holds."""
    sweep(attempt)
    if _unjournaled(attempt):
        layouts = attempt.parent.parent / "layouts"
        writer = Writer(attempt)
        writer.adopt_raw(lambda key: read_layout(layouts / f"{key}.json"))
        writer.close()
    for _ in code_raw(attempt):
        pass
    if not read_attempt(attempt).closed:
        Writer(attempt).close({"trainer": "died", "taken_over": True})
