"""Attempts: each start of a training opens the next one, and nothing is overwritten.

An attempt that starts at step s hides every earlier attempt's checkpoints with step >= s, so that
the visible steps are never a mixture of two trainings.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ndt_offline.errors import DamagedError, NdtError
from ndt_offline.run import journal
from ndt_offline.run.layout import MAX_BYTES
from ndt_offline.storage.regular import read_regular

JOURNAL = "journal.jsonl"
USUAL = ("loss", "grad_norm")
ERRORS = ("error_max", "error_spectral")  # of recording with `precision=`
STATES = ("checkpoint", "raw", "packed", "dropped")  # journal kinds that say where a step is


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint as the run describes it. Unknown for files that others wrote: None."""

    step: int
    attempt: int
    path: Path | None  # None: the step was reached, but its weights were dropped
    size: int | None = None
    file_crc: str | None = None
    content: str | None = None
    scalars: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    offset: int | None = None  # where it lies in a packed file
    parts: tuple[Path, ...] = ()  # of others: the files that hold it, where `path` only lists them

    def stamp(self) -> tuple[int, ...] | None:
        """Size and time of the file (and of its parts), to notice a change without reading it."""
        try:
            stats = [path.stat() for path in (self.path, *self.parts) if path]
        except (OSError, ValueError):
            return None
        return tuple(n for s in stats for n in (s.st_size, s.st_mtime_ns)) if stats else None


@dataclass(frozen=True)
class Problem:
    """Something that could not be used, and what to do about it."""

    what: str
    path: str
    step: int | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One start of the training: what it was told, and the checkpoints in its journal."""

    number: int
    path: Path
    about: Mapping[str, Any]
    entries: Mapping[int, Entry]
    problems: tuple[Problem, ...]
    closed: bool  # its writer said that nothing more comes; packing may write later lines
    size: int  # bytes of the journal, as it was read

    @cached_property
    def records(self) -> tuple[journal.Record, ...]:
        """The journal, read again as it was: few ask for it, and it takes more than the entries."""
        return tuple(journal.read(self.path / JOURNAL, self.size).records)

    @property
    def start_step(self) -> int:
        return int(self.about["start_step"])


def number_of(name: str) -> int | None:
    """The number of an attempt's folder; None for a name that `open_attempt` does not give."""
    if not (name.isascii() and name.isdecimal() and len(name) < 10):
        return None
    return int(name) if name == f"{int(name):04d}" else None


def folders(run: Path) -> list[Path]:
    """The attempts' folders by number; whatever else lies beside them is not ours."""
    numbered = ((number_of(path.name), path) for path in (run / "attempts").glob("[0-9]*"))
    return [path for number, path in sorted((n, p) for n, p in numbered if n) if path.is_dir()]


def read_attempt(path: Path) -> Attempt:
    """Read one attempt's folder; problems in it are listed, not raised."""
    number = int(path.name)
    problems: list[Problem] = []
    odd: list[Problem] = []
    entries: dict[int, Entry] = {}
    where = str(path / JOURNAL)
    closed = False

    def take(record: journal.Record) -> None:
        nonlocal closed
        closed = closed or record.get("kind") == "close"
        if record.get("kind") == "pruned":
            entries.pop(record.get("step", -1), None)
        if record.get("kind") not in STATES:
            return
        try:
            entry = _entry(path, number, record)
            entries[entry.step] = entry
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            odd.append(Problem(f"a line of step {record.get('step')} is odd: {error}", where))

    try:
        lines = journal.read(path / JOURNAL, take=take)
    except NdtError as error:
        problems.append(Problem(error.what, where))
        lines = journal.Journal()
    if lines.torn:
        problems.append(Problem("the last line is torn: its writer was cut off", where))
    for bad in lines.bad_lines:
        problems.append(Problem(f"line {bad} is damaged and was left out", where))
    for line in lines.odd_lines:
        problems.append(Problem(f"line {line} is odd: its step is no whole number", where))
    problems += odd
    about = _about(path / "attempt.json", entries, problems)
    return Attempt(number, path, about, entries, tuple(problems), closed, lines.size)


def visible(attempts: list[Attempt]) -> tuple[list[Entry], int]:
    """The entries that count, by step, and how many earlier ones they hide."""
    shown: dict[int, Entry] = {}
    hidden = 0
    for attempt in attempts:
        start = attempt.start_step if attempt.entries else math.inf
        kept = {step: entry for step, entry in shown.items() if step < start}
        hidden += len(shown) - len(kept)
        shown = {**kept, **attempt.entries}
    return [shown[step] for step in sorted(shown)], hidden


def _entry(folder: Path, number: int, record: journal.Record) -> Entry:
    step, kind = record["step"], record["kind"]
    extra = record.get("scalars") or {}
    rounded = {key: record[key] for key in ERRORS if key in record}
    named = {**{key: record.get(key) for key in USUAL}, **extra, **rounded}
    # Names that every line repeats are kept once.
    values = {sys.intern(str(key)): journal.number(value) for key, value in named.items()}
    scalars = MappingProxyType(values)
    if kind == "dropped":
        return Entry(step, number, None, scalars=scalars)
    file = str(record["file"])
    if not file.isprintable() or Path(file).is_absolute() or ".." in Path(file).parts:
        raise ValueError(f"file {file!r} lies outside the run")
    return Entry(
        step,
        number,
        folder / file,
        _bytes(record["size"]),
        str(record["file_crc"]),
        str(record["content"]),
        scalars,
        None if record.get("offset") is None else _bytes(record["offset"]),
    )


def _bytes(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_BYTES:
        raise ValueError(f"size or offset {str(value)[:40]!r}")
    return value


def _about(path: Path, entries: Mapping[int, Entry], problems: list[Problem]) -> Mapping[str, Any]:
    try:
        about = json.loads(read_regular(path))
        start = about["start_step"]
        if not journal.is_step(start):
            raise ValueError(f"start_step {str(start)[:40]}")
        return about
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if entries:
            problems.append(Problem(f"not readable ({error}); taken from the journal", str(path)))
        return {"start_step": min(entries, default=0)}


def read_json(path: Path) -> Any:
    """A JSON file of the run; DamagedError where it is missing or is not JSON."""
    try:
        return json.loads(read_regular(path))
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"is not JSON: {error}", path=path) from None
