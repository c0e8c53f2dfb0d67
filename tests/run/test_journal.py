"""The journal: whole lines, torn lines, damaged lines, odd numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

from google_crc32c import value as crc32c

from ndt_offline.run import journal


def test_line_is_json_with_its_checksum_last(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(path, {"kind": "checkpoint", "step": 5, "loss": 0.25})
    line = path.read_text().rstrip("\n")
    record = json.loads(line)
    assert list(record)[-1] == "crc"
    body = line[: line.index(',"crc"')].encode()
    assert record["crc"] == f"{crc32c(body):08x}"


def test_numbers_that_json_lacks_survive(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(path, {"loss": math.nan, "grad_norm": math.inf, "scalars": {"lr": -math.inf}})
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    record = journal.read(path).records[0]
    assert math.isnan(journal.number(record["loss"]))
    assert journal.number(record["grad_norm"]) == math.inf
    assert journal.number(record["scalars"]["lr"]) == -math.inf
    assert math.isnan(journal.number(None)) and math.isnan(journal.number([1]))


def test_every_torn_end_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for step in (0, 5):
        journal.append(path, {"kind": "checkpoint", "step": step})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = journal.read(path)
        assert [r["step"] for r in found.records][:1] == [0]
        # A line that lacks only its line end is whole: its checksum says so.
        complete = cut >= len(whole) - 1
        assert len(found.records) == (2 if complete else 1)
        assert found.torn == (not complete and cut > first)
        assert not found.bad_lines


def test_every_flipped_bit_of_a_middle_line_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for step in (0, 5, 10):
        journal.append(path, {"kind": "checkpoint", "step": step})
    whole = path.read_bytes()
    start, stop = whole.index(b"\n") + 1, whole.index(b"\n", whole.index(b"\n") + 1)
    for position in range(start, stop):
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            path.write_bytes(data)
            found = journal.read(path)
            steps = [r["step"] for r in found.records]
            assert steps == [0, 10], (position, bit)
            assert found.bad_lines


def test_missing_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none").records == []
