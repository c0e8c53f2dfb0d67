"""Packing: the checkpoints of a segment in one file, raw ones coded.

A packed file is a safetensors file whose U8 tensors are whole checkpoint files, one per step; the
journal's `packed` line says where one lies (file, offset, size). Order: the file, durable and
decoded again from disk; the lines; only then the originals go. Interrupted anywhere, every
checkpoint is still in one place or the other, and packing again finishes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ndt_offline.errors import NdtError
from ndt_offline.run import checkpoint, codec, container, durable, journal
from ndt_offline.run.attempt import Attempt, Entry, Problem, read_attempt
from ndt_offline.run.deferred import code_raw, sweep
from ndt_offline.run.identity import crc32c, hex8
from ndt_offline.run.layout import Vectors
from ndt_offline.run.reader import Decoder

LENGTH = 32  # checkpoints in a file
# Metadata of one coding.
OWN = ("codec", "layout", "format", "grid", "references", "journal", "deferred")


@dataclass(frozen=True)
class Packed:
    """What packing a segment did."""

    steps: tuple[int, ...]
    before: int  # bytes
    after: int
    problem: Problem | None = None


@dataclass(frozen=True)
class _Part:
    entry: Entry
    data: bytes
    metadata: dict[str, str]

    @property
    def raw(self) -> bool:
        return self.metadata.get("codec") == checkpoint.RAW

    @property
    def keyframe(self) -> bool:
        """Whether the writer began a segment here; a chain of raw ones runs beside it."""
        if "deferred" in self.metadata:
            return False
        return not self.raw and self.metadata.get("references", "[]") == "[]"


def pack_attempt(path: Path, small: bool = False) -> Iterator[Packed]:
    """Pack every segment of an attempt that is not packed yet; small: code all as small as we can.

    The attempt must have no live writer. A segment that cannot be read is left as it is.
    """
    for _ in code_raw(path):
        pass
    attempt = read_attempt(path)
    decoder = Decoder(path.parent.parent, attempt.entries.values())
    for group in _groups(attempt, small):
        if group:
            yield _pack(attempt, group, decoder, small)
    sweep(read_attempt(path))


def _groups(attempt: Attempt, small: bool) -> Iterator[list[_Part]]:
    """Consecutive checkpoints up to the next keyframe, at most 32; finished ones are left out."""
    group: list[_Part] = []
    for step in sorted(attempt.entries):
        entry = attempt.entries[step]
        try:
            part = _part(entry)
        except NdtError:  # verify names it; what builds on it stays where it is
            part = None
        if part is None or part.keyframe or len(group) == LENGTH:
            yield [] if _finished(group, small) else group
            group = []
        if part is not None:
            group.append(part)
    yield [] if _finished(group, small) else group


def _part(entry: Entry) -> _Part | None:
    if entry.path is None:
        return None
    data = checkpoint.read_bytes(entry)
    return _Part(entry, data, dict(container.parse(data).metadata))


def _finished(group: list[_Part], small: bool) -> bool:
    files = {part.entry.path for part in group}
    packed = len(files) == 1 and all(part.entry.offset is not None for part in group)
    return packed and (not small or "small" in next(iter(files)).name)  # type: ignore[union-attr]


def _pack(attempt: Attempt, group: list[_Part], decoder: Decoder, small: bool) -> Packed:
    steps = tuple(part.entry.step for part in group)
    before = sum(len(part.data) for part in group)
    try:
        files = _coded(group, decoder, small)
        path = _free_name(attempt.path, steps, small)
        names = [f"step_{step:012d}" for step in steps]
        table = [(n, "uint8", (len(data),)) for n, data in zip(names, files, strict=True)]
        head = container.header(table, {"format": codec.FORMAT, "packed": "1"})
        durable.write(path, [head, *files])
        entries = _placed(group, files, path, len(head))
        _prove(attempt, entries)
    except NdtError as error:
        problem = Problem(error.what, str(error.path or attempt.path), error.step)
        return Packed(steps, before, before, problem)
    _journal(attempt, entries, small)
    return Packed(steps, before, len(head) + sum(map(len, files)))


def _coded(group: list[_Part], decoder: Decoder, small: bool) -> list[bytes]:
    """The files of a group: as they are, or coded anew on those before them in it."""
    files = []
    history: list[tuple[int, Vectors, str | None]] = []
    for part in group:
        decoded = decoder.read(part.entry)
        grid = part.metadata.get("grid")
        if small and not part.raw:
            # A grid counts in its own steps: values on another one are no base.
            bases = [(s, v) for s, v, g in history if g == grid][:2]
            meta = {key: value for key, value in part.metadata.items() if key not in OWN}
            meta["references"] = json.dumps([step for step, _ in bases])
            vectors = [v for _, v in bases]
            table = json.loads(grid) if grid else None
            files.append(
                codec.encode_vectors(decoded.layout, decoded.vectors, vectors, meta, table, small)
            )
        else:
            files.append(part.data)
        history.insert(0, (part.entry.step, decoded.vectors, grid))
        del history[4:]
    return files


def _placed(group: list[_Part], files: list[bytes], path: Path, offset: int) -> list[Entry]:
    entries = []
    for part, data in zip(group, files, strict=True):
        crc = hex8(crc32c(data))
        entry = replace(part.entry, path=path, offset=offset, size=len(data), file_crc=crc)
        entries.append(entry)
        offset += len(data)
    return entries


def _prove(attempt: Attempt, entries: list[Entry]) -> None:
    """Decode the new file from disk: both checksums must match before an original goes."""
    known = {**attempt.entries, **{entry.step: entry for entry in entries}}
    decoder = Decoder(attempt.path.parent.parent, known.values())
    for entry in entries:
        decoder.read(entry)


def _journal(attempt: Attempt, entries: list[Entry], small: bool) -> None:
    records: dict[Any, journal.Record] = {r.get("step"): r for r in attempt.records if "file" in r}
    path = attempt.path / "journal.jsonl"
    for entry in entries:
        assert entry.path is not None
        place = {"file": str(entry.path.relative_to(attempt.path)), "offset": entry.offset}
        told = {"size": entry.size, "file_crc": entry.file_crc, "small": small}
        old = {key: v for key, v in records[entry.step].items() if key != "crc"}
        record = {**old, "kind": "packed", **place, **told}
        journal.append(path, record, sync=entry is entries[-1])


def _free_name(attempt: Path, steps: tuple[int, ...], small: bool) -> Path:
    named = {entry.path for entry in read_attempt(attempt).entries.values()}
    stem = f"segment_{steps[0]:012d}_{steps[-1]:012d}" + ("_small" if small else "")
    path, again = attempt / "checkpoints" / f"{stem}.safetensors", 1
    while path in named:
        again += 1
        path = attempt / "checkpoints" / f"{stem}_{again}.safetensors"
    return path
