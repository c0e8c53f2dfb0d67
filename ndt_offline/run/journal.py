"""The journal: one JSON line per checkpoint, each with its own checksum.

The journal is the truth about a run: a checkpoint exists when its line is whole and the
checksums in it match the bytes. A torn last line (the writer died) is ignored and counted; a bad
line in the middle is reported, and only that line is lost.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndt_offline.errors import DamagedError
from ndt_offline.run.identity import crc32c, hex8
from ndt_offline.storage.regular import read_regular

Record = dict[str, Any]

MAX_STEP = 2**46  # of no training; steps from there on are not read
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass
class Journal:
    """What a journal file holds: its records, and the lines that could not be used."""

    records: list[Record] = field(default_factory=list)
    bad_lines: list[int] = field(default_factory=list)  # 1-based
    torn: bool = False
    odd_lines: list[int] = field(default_factory=list)  # whole, with a step that is none
    size: int = 0  # bytes that were read


def line_of(record: Mapping[str, Any]) -> bytes:
    """The record as a journal line; its last key is `crc`, over the bytes before `,"crc"`."""
    plain = {key: _to_json(value) for key, value in record.items()}
    body = json.dumps(plain, separators=(",", ":"), allow_nan=False)[:-1].encode()
    return body + f',"crc":"{hex8(crc32c(body))}"}}\n'.encode()


def append(path: Path, record: Mapping[str, Any], sync: bool = True) -> None:
    """Add one line with a single write: lines of one writer never mix.

    A line that cannot be written whole is taken back; a torn one that a dead writer left is
    closed first, so that only that one is lost.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    try:
        line = line_of(record)
        end = os.fstat(handle).st_size
        if end and os.lseek(handle, end - 1, os.SEEK_SET) >= 0 and os.read(handle, 1) != b"\n":
            line = b"\n" + line
        try:
            if os.write(handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            os.ftruncate(handle, end)
            raise
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def read(
    path: Path, upto: int | None = None, take: Callable[[Record], object] | None = None
) -> Journal:
    """Every usable record of the file; a missing file is an empty journal.

    The step of a record, where it has one, is an integer in [0, 2^46). Raises DamagedError where
    there is something that cannot be read.

    upto: bytes to read; what an earlier call read is there for ever.
    take: is given each record, none of which is kept then: a long journal is large.
    """
    try:
        data = read_regular(path)[:upto]
    except FileNotFoundError:
        return Journal()
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    journal = Journal(size=len(data))
    take = take or journal.records.append
    for number, whole in enumerate(io.BytesIO(data), start=1):
        line = whole.removesuffix(b"\n")
        record = parse_line(line) if line else None
        if record is not None and not is_step(record.get("step", 0)):
            journal.odd_lines.append(number)
        elif record is not None:
            take(record)
        elif line and line == whole:
            journal.torn = True
        elif line:
            journal.bad_lines.append(number)
    return journal


def number(value: Any) -> float:
    """A journal value as a float; None, and anything that is no number, is NaN."""
    if isinstance(value, str):
        return _NUMBERS.get(value, math.nan)
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer beyond every float
        return math.nan


def is_step(value: Any) -> bool:
    """Whether a value can be a step: a whole number (not 10.0, not "10") that a reader takes."""
    return type(value) is int and 0 <= value < MAX_STEP


def parse_line(line: bytes) -> Record | None:
    """The record of a whole line, without its `crc`; None for a damaged one."""
    body, mark, rest = line.rpartition(b',"crc":"')
    if not mark or rest != hex8(crc32c(body)).encode() + b'"}':
        return None
    try:
        record = json.loads(body + b"}")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    return value
