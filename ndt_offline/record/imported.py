"""Checkpoints of others made into a run of ours: once, resumable, checked bit for bit.

Every checkpoint goes through the codec that a Recorder uses, in the order of the steps. What is
in the journal is not imported again, so that an interrupted import goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ndt_offline
from ndt_offline.errors import NdtError, UsageError
from ndt_offline.record.attempts import keep_layout, open_attempt, open_run_folder
from ndt_offline.record.pickled import plain_state, read_pickled
from ndt_offline.record.snapshot import layout_of
from ndt_offline.record.writer import Writer
from ndt_offline.run import foreign
from ndt_offline.run.attempt import Attempt, Entry, Problem, folders, read_attempt
from ndt_offline.run.layout import Layout, Vectors
from ndt_offline.run.lock import Lock
from ndt_offline.run.reader import Decoder
from ndt_offline.run.tensors import to_torch
from ndt_offline.run.units import Unit, survey

MARK = "imported"  # in an attempt's description: it has no training behind it
AGAIN = "import all into an empty directory"
Told = Callable[[int, int], None]  # checkpoints done, of how many


@dataclass
class Imported:
    """What an import did."""

    steps: list[int] = field(default_factory=list)
    kept: int = 0  # of an earlier start
    bytes: int = 0
    stored: int = 0
    problems: list[Problem] = field(default_factory=list)


def import_checkpoints(
    sources: Iterable[Path],
    out: Path,
    key: str | None = None,
    loss: str = "none",
    told: Told = lambda done, of: None,
) -> Imported:
    """Write every checkpoint found in files and folders `sources` into the run `out`.

    Raises UsageError where there is none, or where `out` is another run. What cannot be used is
    in `.problems`. After the last one everything is read back and compared with the journal.
    """
    done = Imported()
    entries = find(sources, key, done.problems)
    if not entries:
        told_first = f": {done.problems[0].what}" if done.problems else ""
        raise UsageError(f"no checkpoint that can be imported{told_first}", path=out)
    lock = open_run_folder(out)
    try:
        attempt = _attempt(out, entries[0].step, loss)
        _write(entries, attempt, out, key, done, told)
        done.problems += _compare(out, attempt)
    finally:
        lock.drop()
    return done


def find(sources: Iterable[Path], key: str | None, problems: list[Problem]) -> list[Entry]:
    """The checkpoints of all sources by step.

    A pickle's own step counts more than its name, an epoch inside it less.
    """
    units: list[Unit] = []
    homes: list[Path] = []
    for source in sources:
        if source.is_dir():
            seen = survey(source)
            units += seen.units
            problems += seen.problems
            homes.append(source)
        elif source.exists():
            units.append(Unit(source, (source.name,)))
        else:
            raise UsageError("there is no such file or directory", path=source)
    said: dict[int, Mapping[str, float]] = {}
    pairs = _steps(units, key, said, problems)
    places = "it or in its name"
    chosen = foreign.first_of_each(pairs, problems, places, lambda unit: str(unit.path))
    chosen = dict(sorted(chosen.items()))
    entries = foreign.entries_of(homes[0], chosen, problems) if homes else []
    logged = {entry.step: entry.scalars for entry in entries}
    return [
        Entry(step, 0, unit.path, scalars={**logged.get(step, {}), **said[step]}, parts=unit.parts)
        for step, unit in chosen.items()
    ]


def _steps(
    units: list[Unit],
    key: str | None,
    said: dict[int, Mapping[str, float]],
    problems: list[Problem],
) -> Iterator[tuple[Unit, int | None]]:
    """Units that can be read with their steps; `said` gets the scalars of each step's first one."""
    for unit in units:
        try:
            step, scalars = _step(unit, key)
        except NdtError as error:
            place = str(error.path or unit.path)
            problems.append(Problem(error.what, place, unit.step, error.remedy))
            continue
        if step is not None:
            said.setdefault(step, scalars)
        yield unit, step


def _step(unit: Unit, key: str | None) -> tuple[int | None, Mapping[str, float]]:
    if not unit.pickled or unit.parts:
        return unit.step, {}
    found = read_pickled(unit.path, key)
    steps = (found.step, unit.step, found.epoch)
    return next((step for step in steps if step is not None), None), found.scalars


def read_state(entry: Entry, key: str | None = None) -> dict[str, torch.Tensor]:
    """{plain name: tensor} of one checkpoint of others, whatever form it has."""
    assert entry.path is not None
    if not Unit(entry.path, (entry.path.name,)).pickled:
        decoded = Decoder(entry.path.parent, [entry]).read(entry)
        return plain_state(to_torch(decoded.layout, decoded.vectors))
    state: dict[str, torch.Tensor] = {}
    for path in entry.parts or (entry.path,):
        state |= read_pickled(path, key).state
    return plain_state(state)


def vectors_of(state: Mapping[str, torch.Tensor]) -> tuple[Layout, Vectors]:
    """The tensors as one vector of bytes per dtype; those that share memory once."""
    layout = layout_of(dict(state))
    vectors = {dtype: np.empty(size, np.uint8) for dtype, size in layout.sizes.items()}
    for tensor, span in layout.spans():
        if tensor.nbytes:
            kind = getattr(torch, tensor.dtype)
            place = torch.from_numpy(vectors[tensor.dtype][span]).view(kind)
            place.view(tensor.shape).copy_(state[tensor.name])
    return layout, vectors


def _attempt(out: Path, first: int, loss: str) -> Path:
    """The attempt to go on with, or a new one; UsageError where a training recorded here."""
    attempts = [read_attempt(path) for path in folders(out)]
    # Cut off when it had just begun, an import leaves an empty folder.
    attempts = [a for a in attempts if a.entries or (a.path / "attempt.json").exists()]
    if any(MARK not in attempt.about for attempt in attempts):
        raise UsageError(
            "holds a recorded training", path=out, remedy="import into an empty directory"
        )
    if attempts:
        return attempts[-1].path
    versions = {"ndt_offline": ndt_offline.__version__, "torch": torch.__version__}
    about = {"start_step": first, MARK: True, "loss": loss, "every": None, "versions": versions}
    return open_attempt(out, about)


def _write(
    entries: list[Entry], attempt: Path, out: Path, key: str | None, done: Imported, told: Told
) -> None:
    known = read_attempt(attempt).entries
    newest = max(known, default=-1)
    for step in [e.step for e in entries if e.step < newest and e.step not in known]:
        what = f"lies before step {newest}, which is imported already"
        done.problems.append(Problem(what, str(out), step, AGAIN))
    lock = Lock(attempt / "writer.lock")
    if not lock.take():
        raise UsageError("another import is at work", path=out, remedy="wait until it has ended")
    writer, ended = Writer(attempt), False
    try:
        for count, entry in enumerate(entries):
            told(count, len(entries))
            if entry.step <= newest:
                done.kept += entry.step in known
                continue
            try:
                layout, vectors = vectors_of(read_state(entry, key))
            except NdtError as error:
                place = str(error.path or entry.path)
                done.problems.append(Problem(error.what, place, entry.step, error.remedy))
                continue
            keep_layout(out, layout)
            before = writer.counts["stored_bytes"]
            number = len(known) + len(done.steps)
            scalars = _named(entry.scalars)
            if not writer.write(number, entry.step, layout, vectors, scalars):
                what = "the run's journal has a line of this step that cannot be used"
                done.problems.append(Problem(what, str(attempt), entry.step, AGAIN))
                continue
            done.steps.append(entry.step)
            done.bytes += layout.nbytes
            done.stored += writer.counts["stored_bytes"] - before
        told(len(entries), len(entries))
        ended = True
    finally:
        writer.close({} if ended else None)
        lock.drop()


def _named(scalars: Mapping[str, float]) -> dict[str, Any]:
    """As a journal line has them: the usual two by themselves, the others together."""
    usual = {name: scalars[name] for name in ("loss", "grad_norm") if name in scalars}
    return {**usual, "scalars": {k: v for k, v in scalars.items() if k not in usual}}


def _compare(out: Path, attempt: Path) -> Iterator[Problem]:
    """Everything decoded again: the journal's checksums are of the tensors as they were read."""
    read: Attempt = read_attempt(attempt)
    entries = sorted(read.entries.values(), key=lambda entry: entry.step)
    decoder = Decoder(out, entries)
    for entry in entries:
        try:
            decoder.read(entry)
        except NdtError as error:
            yield Problem(error.what, str(error.path or entry.path), entry.step)
