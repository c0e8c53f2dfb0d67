"""Freeing what later attempts hide: nothing visible is touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ndt_offline.run import journal
from ndt_offline.run.attempt import Entry
from ndt_offline.run.own import is_own
from ndt_offline.run.reader import Run


@dataclass(frozen=True)
class Hidden:
    """Hidden checkpoints of a run, and the files that hold nothing else."""

    entries: tuple[Entry, ...]
    files: tuple[Path, ...]
    size: int  # bytes of the files


def find_hidden(run: Run) -> Hidden:
    """What a later attempt hides. A packed file that a visible checkpoint lies in stays."""
    shown = {(entry.attempt, entry.step) for entry in run.entries}
    needed = {entry.path for entry in run.entries}
    entries = tuple(
        entry
        for attempt in run.attempts
        for entry in attempt.entries.values()
        if (entry.attempt, entry.step) not in shown
    )
    folders = {attempt.number: attempt.path for attempt in run.attempts}
    files = {
        entry.path
        for entry in entries
        if entry.path
        and entry.path not in needed
        and is_own(folders[entry.attempt], entry.path, entry.step)
    }
    size = sum(path.stat().st_size for path in files)
    return Hidden(entries, tuple(sorted(files)), size)


def prune(run: Run, hidden: Hidden) -> None:
    """Delete the files, then say so in the journals: cut off, the next one finds the rest."""
    folders = {attempt.number: attempt.path for attempt in run.attempts}
    for path in hidden.files:
        path.unlink(missing_ok=True)
    for entry in hidden.entries:
        record = {"kind": "pruned", "step": entry.step}
        journal.append(folders[entry.attempt] / "journal.jsonl", record, sync=False)
