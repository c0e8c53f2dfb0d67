"""Runs that somebody tampered with: nothing outside is deleted, nothing ends in a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_packing import contents, record

from ndt_offline.run import journal, packing
from ndt_offline.run.identity import crc32c, hex8
from ndt_offline.run.maintain import alone, verify
from ndt_offline.run.pruning import find_hidden, prune
from ndt_offline.run.reader import open_run


def say(attempt: Path, **words: object) -> None:
    journal.append(attempt / "journal.jsonl", words)


def name(step: int) -> str:
    return f"checkpoints/step_{step:012d}.safetensors"


@pytest.mark.parametrize("place", ["folder", "file", "name", "step"])
def test_packing_deletes_only_files_of_its_own(tmp_path: Path, place: str) -> None:
    attempt = record(tmp_path / "run", range(4))
    list(packing.pack_attempt(attempt))
    outside = tmp_path / "precious"
    outside.mkdir()
    folder = attempt / "checkpoints"
    if place == "folder":  # raw/ leads out of the run
        (attempt / "raw").rmdir()
        (attempt / "raw").symlink_to(outside)
        precious = outside / "step_000000000002.safetensors"
        file = "raw/step_000000000002.safetensors"
    elif place == "file":
        precious = folder / "step_000000000002.safetensors"
        precious.symlink_to(outside)
        file = name(2)
    else:  # a name that recording does not give; a file of another step
        file = "checkpoints/notes.txt" if place == "name" else name(77)
        precious = attempt / file
    if place != "file":
        precious.write_bytes(b"mine")
    told = {"size": 4, "file_crc": "00000000", "content": "00000000"}
    last = json.loads((attempt / "journal.jsonl").read_bytes().splitlines()[-2])
    say(attempt, kind="checkpoint", step=2, file=file, **told)
    for line in journal.read(attempt / "journal.jsonl").records:
        if line.get("kind") == "packed" and line["step"] == 2:
            last = line
    say(attempt, **last)
    packing.sweep(attempt)
    assert os.path.lexists(precious)


def test_an_original_stays_where_its_packed_file_is_not_readable(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(2))
    line = next(r for r in journal.read(attempt / "journal.jsonl").records if r.get("step") == 1)
    gone = "checkpoints/segment_000000000000_000000000001.safetensors"
    say(attempt, **{**line, "kind": "packed", "file": gone, "offset": 0})
    packing.sweep(attempt)
    assert (attempt / name(1)).exists()


def test_pruning_follows_no_link(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    attempt = record(run, range(4))
    (attempt / "checkpoints").rename(outside)
    (attempt / "checkpoints").symlink_to(outside)
    record(run, range(2, 4))
    opened = open_run(run)
    hidden = find_hidden(opened)
    assert len(hidden.entries) == 2 and hidden.files == ()
    prune(opened, hidden)
    assert len(list(outside.iterdir())) == 4


@pytest.mark.parametrize("stray", ["0001.bak", "1\u00b2", "\u0661", "1", "0" * 200])
def test_stray_folders_are_not_attempts(tmp_path: Path, stray: str) -> None:
    run = tmp_path / "run"
    record(run, range(2))
    before = contents(run)
    (run / "attempts" / stray).mkdir()
    assert contents(run) == before and len(open_run(run).attempts) == 1
    with alone(run):
        pass
    record(run, range(2, 4))
    assert [attempt.number for attempt in open_run(run).attempts] == [1, 2]


def add_line(attempt: Path, body: str) -> None:
    """A line as hostile as it may be, with the checksum that makes it whole."""
    raw = body[:-1].encode()
    with (attempt / "journal.jsonl").open("ab") as file:
        file.write(raw + f',"crc":"{hex8(crc32c(raw))}"}}\n'.encode())


def checkpoint(step: str) -> str:
    words = '"file":"checkpoints/a","size":1,"file_crc":"0","content":"0"'
    return f'{{"kind":"checkpoint","step":{step},{words}}}'


@pytest.mark.parametrize(
    "body",
    [
        checkpoint("1e999"),
        checkpoint("10.9"),
        checkpoint('"10"'),
        checkpoint("true"),
        checkpoint("-1"),
        '{"kind":"pruned","step":[1]}',
        '{"kind":"pruned","step":{}}',
        '{"kind":["pruned"],"step":[1]}',
        '{"kind":"checkpoint","step":7,"file":"checkpoints/a","size":1e999}',
        '{"kind":"checkpoint","step":7,"file":"a\\u0000b","size":1,"file_crc":"","content":""}',
        '{"kind":"checkpoint","step":7,"file":"\\ud800","size":1,"file_crc":"","content":""}',
        '{"kind":"checkpoint","step":7,"file":"a","size":1,"scalars":[1]}',
    ],
)
def test_an_odd_line_is_listed_and_left_out(tmp_path: Path, body: str) -> None:
    attempt = record(tmp_path / "run", range(3))
    add_line(attempt, body)
    opened = open_run(tmp_path / "run")
    assert opened.steps == [0, 1, 2] and len(opened.journal) == 3
    assert len(opened.problems) == 1 and "odd" in opened.problems[0].what
    assert list(verify(opened)) == []
    list(packing.pack_attempt(attempt))
    record(tmp_path / "run", range(3, 5))
    assert open_run(tmp_path / "run").steps == [0, 1, 2, 3, 4]


def test_a_number_beyond_every_float_is_unknown(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(1))
    add_line(attempt, f'{{"kind":"dropped","step":1,"loss":1{"0" * 400}}}')
    loss = open_run(tmp_path / "run").scalar("loss")
    assert loss[0] == 0.0 and loss[1] != loss[1]


@pytest.mark.parametrize("start", ["1e999", '"3"', "-1", "null", "[1]"])
def test_an_odd_start_is_taken_from_the_journal(tmp_path: Path, start: str) -> None:
    attempt = record(tmp_path / "run", range(2, 4))
    (attempt / "attempt.json").write_text(f'{{"start_step": {start}}}')
    opened = open_run(tmp_path / "run")
    assert opened.attempts[0].start_step == 2 and len(opened.problems) == 1
