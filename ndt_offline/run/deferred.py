"""Coding what was written raw, later: one checkpoint at a time, while others may read.

Raw checkpoints are coded on the raw ones shortly before them, never on those that the writer
coded: each chain stays a line, and a reader needs two checkpoints of each. Order: the new file,
durable and decoded again from disk; its line in the journal; only then the raw file goes. Killed
anywhere, every checkpoint is in one place or the other, and the next pass goes on. A reader who
finds the raw file gone asks the journal again (see `Decoder`); where the checkpoint was rounded, he
is told to begin again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ndt_offline.errors import NdtError
from ndt_offline.run import checkpoint, codec, durable, grid, journal
from ndt_offline.run.attempt import Attempt, Entry, read_attempt
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.identity import content, crc32c, hex8
from ndt_offline.run.layout import Vectors
from ndt_offline.run.own import is_own
from ndt_offline.run.reader import Decoder

LENGTH = 32  # checkpoints from a chain's first to its last, coded or not: readers know no more
BATCH = 16  # checkpoints made durable at a time
NEAR = 8  # checkpoints: what lies further back predicts nothing


@dataclass(frozen=True)
class _Chain:
    """What the next raw checkpoint is coded on: (step, vectors), newest first."""

    before: tuple[tuple[int, Vectors], ...] = ()
    first: int = 0  # places of the oldest and the newest among the attempt's checkpoints
    last: int = 0
    grid: dict[str, list[int | None]] | None = None  # that all its values lie on
    layout: str = ""  # the table that the grid is for

    def on(self, place: int) -> _Chain:
        """The chain as far as the checkpoint at this place may use it."""
        near = place - self.first < LENGTH and place - self.last <= NEAR
        return self if near else _Chain()

    def after(self, step: int, vectors: Vectors, place: int) -> _Chain:
        first = self.first if self.before else place
        before = ((step, vectors), *self.before)[:2]
        return replace(self, before=before, first=first, last=place)


@dataclass(frozen=True)
class _Coded:
    """A checkpoint in both forms, and the line that will say so."""

    raw: Path
    path: Path
    record: journal.Record


def code_raw(path: Path, digits: int | None = None) -> Iterator[int]:
    """Code an attempt's raw checkpoints; yields the step of each.

    digits: round them to a grid first (see `grid`), as their writer was asked to. They are other
    checkpoints then: not for runs that are finished, whose results would change.
    The caller is the only one who writes in the attempt (its `writer.lock`). A checkpoint that
    cannot be read stays as it is. OSError where the disk is full: nothing is lost.
    """
    attempt = read_attempt(path)
    sweep(attempt)
    records = {r.get("step"): r for r in attempt.records if "file" in r}
    decoder = Decoder(path.parent.parent, attempt.entries.values())
    chain, written = _Chain(), list[_Coded]()
    for place, step in enumerate(sorted(attempt.entries)):
        entry = attempt.entries[step]
        if not _is_raw(attempt, entry):
            continue
        chain = chain.on(place)
        try:
            decoded, record, bounds = decoder.read(entry), records[step], dict[str, str]()
            if digits is not None:
                exact = decoded.vectors
                chain, decoded = _on_grid(chain, decoded, digits)
                bounds, worst = grid.told_errors(decoded.layout, exact, decoded.vectors)
                record = {**record, **worst}
            written.append(_code(attempt, entry, decoded, chain, record, bounds))
        except NdtError:  # verify names it
            continue
        chain = chain.after(step, decoded.vectors, place)
        if len(written) == BATCH:
            _settle(attempt, written)
            written = []
        yield step
    _settle(attempt, written)


def sweep(attempt: Attempt) -> None:
    """Remove files whose checkpoints lie elsewhere: a pass was killed before it did.

    Raw ones that are coded, and those of any kind that are packed.
    """
    kept = {entry.path for entry in attempt.entries.values()}
    for record in attempt.records:
        step, file = record.get("step", -1), attempt.path / str(record.get("file", ""))
        entry = attempt.entries.get(step)
        if entry is None or entry.path is None or file in kept:
            continue
        moved = file.parent.name == "raw" or entry.offset is not None
        if moved and is_own(attempt.path, file, step):
            with contextlib.suppress(NdtError):  # a line says so, but the bytes must be there
                checkpoint.read_bytes(entry)
                file.unlink(missing_ok=True)


def _is_raw(attempt: Attempt, entry: Entry) -> bool:
    file = entry.path
    return file is not None and file.parent.name == "raw" and is_own(attempt.path, file, entry.step)


def _on_grid(chain: _Chain, decoded: Decoded, digits: int) -> tuple[_Chain, Decoded]:
    """The checkpoint rounded to the chain's grid; a new chain where it does not fit."""
    layout = decoded.layout
    known = chain.grid if chain.layout == layout.key else None
    found, coarse = grid.round_to(known, layout, decoded.vectors, digits)
    if found is not known:
        chain = _Chain(grid=found, layout=layout.key)
    return chain, replace(decoded, vectors=coarse, content=content(layout, coarse))


def _code(
    attempt: Attempt,
    entry: Entry,
    decoded: Decoded,
    chain: _Chain,
    record: journal.Record,
    bounds: dict[str, str],
) -> _Coded:
    """Write it coded, and decode it again from the file."""
    assert entry.path is not None
    bases = dict(chain.before)
    meta = {"references": json.dumps(list(bases)), "deferred": "1", **bounds}
    before, small = list(bases.values()), chain.grid is not None
    data = codec.encode_vectors(decoded.layout, decoded.vectors, before, meta, chain.grid, small)
    file, crc = checkpoint.file_name(entry.step), hex8(crc32c(data))
    path = attempt.path / file
    durable.write(path, [data], sync=False)
    new = replace(entry, path=path, size=len(data), file_crc=crc, content=decoded.content)
    checkpoint.read(new, lambda key: decoded.layout, lambda step: bases[step])
    told = {"kind": "checkpoint", "file": file, "size": len(data), "file_crc": crc, "was_raw": True}
    return _Coded(entry.path, path, {**record, **told, "content": decoded.content})


def _settle(attempt: Attempt, written: list[_Coded]) -> None:
    """The files durable, then their lines, then the raw ones go."""
    durable.sync([coded.path for coded in written])
    lines = attempt.path / "journal.jsonl"
    for coded in written:
        journal.append(lines, coded.record, sync=coded is written[-1])
    for coded in written:
        coded.raw.unlink(missing_ok=True)
