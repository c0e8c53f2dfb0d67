"""A run, opened: its visible steps, its journal, and the weights at any step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ndt_offline.errors import DamagedError, NdtError, UsageError
from ndt_offline.run import checkpoint, foreign, journal
from ndt_offline.run.attempt import (
    ERRORS,
    Attempt,
    Entry,
    Problem,
    folders,
    read_attempt,
    read_json,
    visible,
)
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.layout import Layout, Vectors
from ndt_offline.storage.location import is_there, locate
from ndt_offline.storage.regular import read_regular

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
MAX_CHAIN = 64  # segments hold 32: a longer chain of references is a loop or an attack
MAX_WORK = 2 * MAX_CHAIN  # checkpoints decoded for one: references can branch at every step


@dataclass
class Run:
    """The directory that one training wrote, or a folder of checkpoints that others wrote."""

    path: Path
    entries: list[Entry]
    problems: list[Problem]
    attempts: list[Attempt] = field(default_factory=list)
    hidden: int = 0
    foreign: bool = False

    @property
    def steps(self) -> list[int]:
        return [entry.step for entry in self.entries]

    @cached_property
    def _by_step(self) -> dict[int, Entry]:
        return {entry.step: entry for entry in self.entries}

    @property
    def journal(self) -> list[journal.Record]:
        """The journal records of the visible checkpoints, by step."""
        shown = {(entry.attempt, entry.step) for entry in self.entries}
        records = {
            (attempt.number, record.get("step")): record
            for attempt in self.attempts
            for record in attempt.records
        }
        return [records[key] for key in sorted(shown & records.keys(), key=lambda k: k[1] or 0)]

    @property
    def about(self) -> dict[str, Any]:
        """What the newest attempt with checkpoints was told: loss, every, versions."""
        told = [dict(a.about) for a in self.attempts if a.entries]
        return told[-1] if told else {}

    def scalar(self, name: str) -> np.ndarray:
        """A journal scalar at every visible step, NaN where it was not given."""
        return np.array([entry.scalars.get(name, np.nan) for entry in self.entries], np.float64)

    @property
    def scalar_names(self) -> list[str]:
        return list(dict.fromkeys(name for entry in self.entries for name in entry.scalars))

    def entry(self, step: int) -> Entry:
        if step not in self._by_step:
            raise UsageError(
                f"no checkpoint of step {step}; there are {len(self.entries)}, "
                f"{self.steps[:1]} to {self.steps[-1:]}",
                path=self.path,
                remedy=f"ndt-offline inspect {self.path}",
            )
        return self._by_step[step]

    def checkpoint(self, step: int) -> dict[str, torch.Tensor]:
        """{name: CPU tensor} at `step`, tied names included; both checksums are checked."""
        from ndt_offline.run.tensors import to_torch

        decoded = Decoder(self.path, self.entries).read(self.entry(step))
        return to_torch(decoded.layout, decoded.vectors)


class Decoder:
    """Decodes checkpoints of a run, remembering the last few so that a segment costs one pass.

    A file that is gone may have been packed or coded meanwhile: the journal is asked once more.
    So it is for a checkpoint that others build on and that was not given: raw ones, coded later,
    once stood on others far before them.
    """

    REMEMBERED = 5  # two of each chain, and a chain of raw ones may run beside the writer's

    def __init__(self, run: Path, entries: Iterable[Entry]) -> None:
        # What a visible checkpoint builds on is visible too: it has a lower step and the same
        # attempt.
        self._run, self._folder = run, run / "layouts"
        self._entries = {(entry.attempt, entry.step): entry for entry in entries}
        self._recent: dict[tuple[int, int], Decoded] = {}
        self._layouts: dict[str, Layout] = {}
        self._asked: set[int] = set()  # attempts whose journal was read for what was not given
        self._work = 0

    def read(self, entry: Entry, depth: int = 0) -> Decoded:
        """The tensors of one checkpoint; raises DamagedError or RefusedError saying which file."""
        key = (entry.attempt, entry.step)
        if key in self._recent:
            return self._recent[key]
        if entry.path is None:
            raise DamagedError("the weights of this step were dropped", step=entry.step)
        self._work = self._work + 1 if depth else 0
        if self._work > MAX_WORK:
            raise DamagedError(f"it builds on more than {MAX_WORK} checkpoints", step=entry.step)
        try:
            if entry.parts:
                decoded = foreign.read_parts(entry)
            else:
                decoded = checkpoint.read(
                    entry, self._layout, lambda step: self._base(entry, step, depth)
                )
        except NdtError as error:
            moved = None if is_there(entry.path) else self._moved(entry)
            if moved is None:
                raise error.at(step=entry.step) from None
            return self.read(moved, depth)
        self._remember(key, decoded)
        return decoded

    def _moved(self, entry: Entry) -> Entry | None:
        """Where the journal now says that a checkpoint is; None where it knows no other place."""
        self._work += 1
        if self._work > MAX_WORK:
            return None
        entries = self._journal(entry.attempt)
        found = entries.get(entry.step)
        if found is None or found.path in (None, entry.path):
            return None
        if found.content != entry.content:
            if ERRORS[0] not in found.scalars:
                return None
            what = "its weights were rounded meanwhile (precision=): the same command again"
            raise DamagedError(f"{what} reads them", path=found.path, step=entry.step)
        self._entries.update({(entry.attempt, step): entries[step] for step in entries})
        return found

    def _journal(self, attempt: int) -> Mapping[int, Entry]:
        folder = self._run / "attempts" / f"{attempt:04d}"
        return read_attempt(folder).entries if folder.is_dir() else {}

    def _base(self, entry: Entry, step: int, depth: int) -> Vectors:
        found = self._entries.get((entry.attempt, step))
        if found is None and entry.attempt not in self._asked:
            self._asked.add(entry.attempt)
            known = self._journal(entry.attempt)
            self._entries = {(entry.attempt, s): known[s] for s in known} | self._entries
            found = self._entries.get((entry.attempt, step))
        if found is None or step >= entry.step or depth >= MAX_CHAIN:
            raise DamagedError(f"it builds on step {step}, which is not before it in its attempt")
        return self.read(found, depth + 1).vectors

    def _remember(self, key: tuple[int, int], decoded: Decoded) -> None:
        if decoded.references is None:  # nothing builds on plain tensors
            return
        for step in decoded.references[1:]:  # what follows in the chain needs only the newer
            self._recent.pop((key[0], step), None)
        self._recent[key] = decoded
        while len(self._recent) > self.REMEMBERED:
            self._recent.pop(next(iter(self._recent)))

    def _layout(self, key: str) -> Layout:
        if key not in self._layouts:
            if not key.isalnum():
                raise DamagedError(f"the tensor table is named {key[:80]!r}")
            self._layouts[key] = read_layout(self._folder / f"{key}.json")
        return self._layouts[key]


def read_layout(path: Path) -> Layout:
    """A tensor table, checked against the hash that is its name."""
    try:
        layout = Layout.from_json(read_regular(path))
    except FileNotFoundError:
        raise DamagedError(f"its tensor table {path.name} is missing") from None
    except OSError as error:
        what = f"its tensor table {path.name} cannot be read: {error.strerror}"
        raise DamagedError(what) from None
    if layout.key != path.stem:
        raise DamagedError(f"its tensor table {path.name} is not what was recorded")
    return layout


def recorded_layouts(run: Run) -> list[Layout]:
    """Every readable tensor table of a recorded run."""
    tables = []
    for path in sorted((run.path / "layouts").glob("*.json")):
        with contextlib.suppress(NdtError):  # its checkpoints will say so
            tables.append(read_layout(path))
    return tables


def open_run(path: str | Path) -> Run:
    """Open a run directory, or a folder of safetensors checkpoints that other programs wrote.

    Raises UsageError when there is nothing to open; what cannot be used inside is in `.problems`.
    """
    path = locate(path)
    if not path.is_dir():
        found = "is a file, not a directory" if path.exists() else "there is no such directory"
        raise UsageError(found, path=path, remedy="give the directory a Recorder wrote")
    if (path / "run.json").exists():
        return _recorded(path)
    entries, problems = foreign.discover(path)
    if not entries:
        told = f" ({problems[0].path}: {problems[0].what})" if problems else ""
        pickled = [problem.remedy for problem in problems if problem.remedy and problem.step]
        raise UsageError(
            f"holds no run.json and no safetensors file with a step in its name{told}",
            path=path,
            remedy=pickled[0]
            if pickled
            else "record one: see `Recorder` in README, or `python pipelines/record_mnist.py`",
        )
    return Run(path, entries, problems, foreign=True)


def _recorded(path: Path) -> Run:
    about = read_json(path / "run.json")
    version = about.get("format") if isinstance(about, dict) else None
    if version != FORMAT_VERSION:
        raise UsageError(
            f"run.json says format {version!r}; this version reads {FORMAT_VERSION}",
            path=path,
            remedy="pip install --upgrade ndt-offline",
        )
    attempts = [read_attempt(folder) for folder in folders(path)]
    entries, hidden = visible(attempts)
    problems = [problem for attempt in attempts for problem in attempt.problems]
    if not entries:
        raw = any(True for a in attempts for _ in (a.path / "raw").glob("step_*.safetensors"))
        remedy = f"ndt-offline pack {path}" if raw else "train for a few steps first"
        raise UsageError("the run has no checkpoint yet", path=path, remedy=remedy)
    return Run(path, entries, problems, attempts, hidden)
