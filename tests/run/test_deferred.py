"""Coding raw checkpoints later: fewer bytes, the same checkpoints, whoever reads or kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_packing import contents, record, vectors_at

from ndt_offline.errors import DamagedError
from ndt_offline.replay.mark import SEGMENT
from ndt_offline.run import deferred, durable, journal, reader
from ndt_offline.run.attempt import ERRORS
from ndt_offline.run.layout import LINE
from ndt_offline.run.maintain import verify
from ndt_offline.run.packing import pack_attempt
from ndt_offline.run.reader import Decoder, open_run

RAW = tuple(step for step in range(60) if step % 3 or 20 < step < 50)


def raw_files(run: Path) -> list[Path]:
    return sorted(run.glob("attempts/*/raw/*"))


def size(run: Path) -> int:
    return sum(path.stat().st_size for path in run.glob("attempts/*/*/*.safetensors"))


@pytest.mark.parametrize("precision", [None, "q12"])
def test_raw_ones_are_coded_and_nothing_else_changes(tmp_path: Path, precision) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(60), raw=RAW, precision=precision)
    before, old, was = contents(run), open_run(run), size(run)
    assert list(deferred.code_raw(attempt)) == list(RAW)
    new = open_run(run)
    assert contents(run) == before and list(verify(new)) == [] and new.problems == []
    assert [e.content for e in new.entries] == [e.content for e in old.entries]
    assert (new.scalar("loss") == old.scalar("loss")).all()
    assert raw_files(run) == [] and size(run) < 0.92 * was
    assert list(deferred.code_raw(attempt)) == []
    assert all(done.problem is None for done in pack_attempt(attempt))
    assert contents(run) == before and list(verify(open_run(run))) == []


def test_raw_ones_are_rounded_as_their_writer_was_asked(tmp_path: Path) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(60), raw=RAW, precision="q12")
    before, was = contents(run), size(run)
    assert list(deferred.code_raw(attempt, digits=12)) == list(RAW)
    opened, after = open_run(run), contents(run)
    assert list(verify(opened)) == [] and opened.problems == [] and raw_files(run) == []
    assert {step for step in before if after[step] != before[step]} == set(RAW)
    assert size(run) < 0.6 * was
    largest, spectral = (opened.scalar(name) for name in ERRORS)
    for step in RAW:
        exact = vectors_at(step)
        coarse = opened.checkpoint(step)
        assert coarse["n"].numpy().tobytes() == exact["int64"].tobytes()
        error = coarse["w"].numpy().ravel() - exact["float32"].view(np.float32).astype(np.float64)
        rms = np.sqrt(np.mean(np.square(exact["float32"].view(np.float32), dtype=np.float64)))
        assert 0 < np.abs(error).max() == largest[step] < 2**-11 * rms
        norm = np.linalg.norm(error.reshape(coarse["w"].shape), 2)
        assert 0.1 * spectral[step] < norm <= spectral[step]
    assert all(done.problem is None for done in pack_attempt(attempt, small=True))
    assert contents(run) == after and list(verify(open_run(run))) == []


def test_values_beyond_the_grid_of_a_chain_begin_another(tmp_path: Path, monkeypatch) -> None:
    scales = {step: 2.0 ** (40 * (step >= 20)) for step in range(40)}
    monkeypatch.setattr("test_packing.vectors_at", lambda step: scaled(step, scales[step]))
    attempt = record(tmp_path / "run", range(40), raw=tuple(range(40)), precision="q12")
    list(deferred.code_raw(attempt, digits=12))
    opened = open_run(tmp_path / "run")
    assert list(verify(opened)) == []
    largest = opened.scalar(ERRORS[0])
    assert largest[20:].min() > 2.0**30 * largest[:20].max() > 0


def scaled(step: int, scale: float) -> dict[str, np.ndarray]:
    vectors = vectors_at(step)
    values = vectors["float32"].view(np.float32) * np.float32(scale)
    return {**vectors, "float32": values.view(np.uint8)}


def test_who_opened_the_run_before_it_was_rounded_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(60), raw=RAW, precision="q12")
    earlier = open_run(run)
    list(deferred.code_raw(attempt, digits=12))
    decoder = Decoder(run, earlier.entries)
    with pytest.raises(DamagedError, match=r"rounded meanwhile .* same command again"):
        decoder.read(earlier.entry(RAW[0]))
    untouched = earlier.entry(next(step for step in range(60) if step not in RAW))
    assert decoder.read(untouched).content == untouched.content


def test_every_chain_is_read_in_one_pass(tmp_path: Path, monkeypatch) -> None:
    """Reading all decodes each checkpoint once, though two chains run beside each other."""
    run = tmp_path / "run"
    list(deferred.code_raw(record(run, range(60), raw=RAW)))
    opened, read = open_run(run), []
    real = deferred.checkpoint.read
    monkeypatch.setattr(
        deferred.checkpoint,
        "read",
        lambda entry, *rest: read.append(entry.step) or real(entry, *rest),
    )
    decoder = Decoder(run, opened.entries)
    for entry in opened.entries:
        decoder.read(entry)
    assert read == opened.steps


@pytest.mark.parametrize("length", [deferred.LENGTH, 200])
def test_sparse_raw_ones_are_read_by_who_was_given_a_block(
    tmp_path: Path, monkeypatch, length: int
) -> None:
    """A block is given the 32 checkpoints before it; older runs have chains that reach further."""
    monkeypatch.setattr(deferred, "LENGTH", length)
    run = tmp_path / "run"
    list(deferred.code_raw(record(run, range(120), raw=tuple(range(0, 120, 3)))))
    opened = open_run(run)
    journals: list[Path] = []
    real = reader.read_attempt
    monkeypatch.setattr(reader, "read_attempt", lambda at: journals.append(at) or real(at))
    for start in (40, 64, 100):
        decoder = Decoder(run, opened.entries[start - SEGMENT :])
        for entry in opened.entries[start:]:
            assert decoder.read(entry).content == entry.content
    assert len(journals) == (0 if length <= SEGMENT else 3)


class Cut(Exception):
    """The power goes here."""


@pytest.mark.parametrize("at", [1, 9, 16, 17, 40])
@pytest.mark.parametrize("place", ["write", "sync", "journal", "unlink"])
def test_cut_anywhere_nothing_is_lost(tmp_path: Path, monkeypatch, place: str, at: int) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(60), raw=RAW)
    before = contents(run)
    owner, name, limit = {
        "write": (durable, "write", at),
        "sync": (durable, "sync", at // 16 + 1),
        "journal": (journal, "append", at),
        "unlink": (Path, "unlink", at),
    }[place]
    real, calls = getattr(owner, name), [0]

    def cutting(*given, **named):
        calls[0] += 1
        if calls[0] >= limit:
            raise Cut
        return real(*given, **named)

    monkeypatch.setattr(owner, name, cutting)
    with pytest.raises(Cut):
        list(deferred.code_raw(attempt))
    monkeypatch.undo()
    assert contents(run) == before and list(verify(open_run(run))) == []
    list(deferred.code_raw(attempt))
    assert contents(run) == before and list(verify(open_run(run))) == []
    assert raw_files(run) == [] and not list(run.rglob(f"*{durable.LITTER}"))


def test_killed_at_any_moment(tmp_path: Path) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(60), raw=RAW)
    before = contents(run)
    code = (
        "import sys; from pathlib import Path; from ndt_offline.run import deferred;"
        "print(flush=True); list(deferred.code_raw(Path(sys.argv[1])))"
    )
    for pause in (0.0, 0.02, 0.05, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(attempt)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert contents(run) == before and list(verify(open_run(run))) == []
    list(deferred.code_raw(attempt))
    assert contents(run) == before and raw_files(run) == []


@pytest.mark.parametrize("packed", [False, True])
def test_who_reads_meanwhile_gets_every_checkpoint(tmp_path: Path, packed: bool) -> None:
    """The run was opened before; a checkpoint is coded, or all are packed, between two reads."""
    run = tmp_path / "run"
    attempt = record(run, range(60), raw=RAW)
    before, opened = contents(run), open_run(run)
    windows = Decoder(run, opened.entries[20:]), Decoder(run, opened.entries)
    coding = iter([]) if packed else deferred.code_raw(attempt)
    for place, entry in enumerate(opened.entries):
        if packed and place == 30:
            list(pack_attempt(attempt))
        next(coding, None)
        for decoder in windows[place < 20 :]:
            assert decoder.read(entry).content == before[entry.step]


def test_a_damaged_raw_file_stays_and_the_rest_is_coded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(10), raw=(4, 5, 6))
    bad = attempt / "raw" / "step_000000000005.safetensors"
    data = bytearray(bad.read_bytes())
    data[-3] ^= 1
    bad.write_bytes(data)
    assert list(deferred.code_raw(attempt)) == [4, 6]
    assert raw_files(run) == [bad]
    assert [problem.step for problem in verify(open_run(run))] == [5]


def test_a_missing_file_is_still_said_to_be_missing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(4), raw=(2,))
    (attempt / "raw" / "step_000000000002.safetensors").unlink()
    problems = list(verify(open_run(run)))
    assert [(p.step, p.what) for p in problems] == [(2, "the file is missing")]
    assert list(deferred.code_raw(attempt)) == []


def test_decoded_memory_begins_on_cache_lines(tmp_path: Path) -> None:
    """Torch takes it as it is, and sums do not depend on where it happened to lie."""
    run = tmp_path / "run"
    record(run, range(6), raw=(1, 4))
    opened = open_run(run)
    decoder = Decoder(run, opened.entries)
    for entry in opened.entries:
        for vector in decoder.read(entry).vectors.values():
            assert vector.ctypes.data % LINE == 0, entry.step
