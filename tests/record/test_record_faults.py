"""Kill -9, power cuts, full disks: what was promised is there, and nothing wrong is believed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
import warnings
from pathlib import Path

import pytest
from recorded_training import digest, forked_trainer, make_model, updates, wait_for_writer

from ndt_offline import Recorder, open_run
from ndt_offline.errors import NdtError
from ndt_offline.record import rawfile, ring, syncer, writer
from ndt_offline.record.attempts import keep_layout, open_attempt, open_run_folder
from ndt_offline.record.leftovers import take_over
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.run import durable, journal, reader
from ndt_offline.run.maintain import verify
from ndt_offline.run.reader import read_layout

FULL = os.environ.get("NDT_SLOW") == "1"
pytestmark = pytest.mark.filterwarnings("ignore:ndt-offline. no probe")


def acknowledged(path: Path) -> dict[int, str]:
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {int(step): found for step, found in (line.split() for line in lines)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100 if FULL else 6))
def test_nothing_is_lost_when_the_trainer_is_killed(tmp_path: Path, seed: int) -> None:
    run = tmp_path / "run"
    child = forked_trainer(run, tmp_path / "told", seed)
    deadline = time.monotonic() + 180
    while not acknowledged(tmp_path / "told"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(random.Random(seed).uniform(0, 0.6))
    (run / "attempts" / "0001" / f"half of something{durable.LITTER}").touch()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = acknowledged(tmp_path / "told")
    wait_for_writer(run / "attempts" / "0001")
    opened = open_run(run)
    found = {entry.step: entry.content for entry in opened.entries if entry.path}
    assert told and {step: found.get(step) for step in told} == told
    assert set(found) - set(told) <= {max(told) + 1}  # published, not yet written down
    assert list(verify(opened)) == [] and opened.problems == []
    assert opened.attempts[0].records[-1]["trainer"] == "died"
    assert not list(run.rglob(f"*{durable.LITTER}"))


def test_killed_together_at_most_the_ring_is_lost_and_it_is_said(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    child = forked_trainer(run, tmp_path / "told", 2)
    deadline = time.monotonic() + 180
    while len(acknowledged(tmp_path / "told")) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child, signal.SIGSTOP)  # or it starts another writer
    children = Path(f"/proc/{child}/task/{child}/children").read_text().split()
    for process in (*map(int, children), child):
        os.kill(process, signal.SIGKILL)
    os.waitpid(child, 0)
    told = acknowledged(tmp_path / "told")
    time.sleep(0.1)
    Recorder(run, make_model(), start_step=10_000).close()
    assert "has no end" in capsys.readouterr().err
    wait_for_writer(run / "attempts" / "0002")
    opened = open_run(run)
    found = {entry.step: entry.content for entry in opened.entries if entry.path}
    lost = [step for step in told if step not in found]
    assert len(lost) <= 8
    assert all(found[step] == told[step] for step in told if step in found)
    assert list(verify(opened)) == []


def written_run(tmp_path: Path, count: int, raw_every: int = 7) -> tuple[Path, dict[int, str]]:
    """A run written without a recorder: coded, with some raw files; and its true contents."""
    model = make_model()
    lock = open_run_folder(tmp_path / "run")
    lock.drop()
    attempt = open_attempt(tmp_path / "run", {"start_step": 0, "every": 1})
    snapshot = Snapshot(model)
    keep_layout(tmp_path / "run", snapshot.layout)
    out = writer.Writer(attempt)
    truth = {}
    for number, _ in enumerate(updates(model, count)):
        truth[number] = digest(model)
        layout, vectors = snapshot.take()
        if raw_every and number % raw_every == 3:
            rawfile.write(attempt, number, layout, vectors, {})
            out.adopt_raw(lambda key: layout)  # noqa: B023
        else:
            out.write(number, number, layout, vectors, {"loss": 1.0})
    out.close({"trainer": "closed"})
    return attempt, truth


@pytest.mark.parametrize("seed", range(40 if FULL else 12))
def test_a_power_cut_loses_the_unsynced_tail_and_says_so(tmp_path: Path, monkeypatch, seed) -> None:
    """Every file that was not synced may be whole, cut, zeroed in parts, or gone."""
    synced: dict[str, int] = {}
    real = os.fsync

    def fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        synced[path.split(".safetensors")[0]] = os.fstat(handle).st_size
        real(handle)

    random_ = random.Random(seed)
    monkeypatch.setattr(os, "fsync", fsync)
    cut = random_.randrange(5, 90)
    real_close = syncer.Syncer.close
    monkeypatch.setattr(
        syncer.Syncer, "close", lambda self: (self._batches.put(None), self._thread.join())
    )
    attempt, truth = written_run(tmp_path, cut)
    monkeypatch.setattr(syncer.Syncer, "close", real_close)
    for path in sorted(attempt.rglob("*")):
        if not path.is_file() or path.name == "attempt.json":
            continue
        kept = synced.get(str(path).split(".safetensors")[0], 0)
        data = bytearray(path.read_bytes())
        fate = random_.choice(["whole", "cut", "zeros", "gone"])
        if kept == len(data) or fate == "whole":
            continue
        if fate == "gone" and kept == 0:
            path.unlink()
            continue
        at = random_.randrange(kept, len(data))
        data[at:] = b"" if fate == "cut" else bytes(len(data) - at)
        path.write_bytes(data)
    take_over(attempt.parent, before=2)
    try:
        opened = open_run(tmp_path / "run")
    except NdtError:  # not even the first lines were on the disk
        assert cut <= 32
        return
    damaged = {problem.step for problem in verify(opened)}
    found = {e.step: e.content for e in opened.entries if e.path and e.step not in damaged}
    assert all(truth[step] == content for step, content in found.items())
    full_segments = cut // 32 * 32  # synced when the next one began
    coded = [step for step in range(full_segments) if step % 7 != 3]
    assert all(step in found for step in coded[: -1 if cut == full_segments else None])


def test_a_full_disk_at_every_write_in_turn(tmp_path: Path, monkeypatch) -> None:
    """The n-th write fails, in trainer and writer alike; nothing raises, nothing is wrong."""
    real_write, real_writev = os.write, os.writev
    state = {"left": 0, "armed": False}

    def due(handle: int) -> bool:
        target = os.readlink(f"/proc/self/fd/{handle}")
        if not state["armed"] or str(tmp_path) not in target:
            return False
        state["left"] -= 1
        return state["left"] == -1

    def write(handle: int, data) -> int:
        if due(handle):
            real_write(handle, bytes(data)[: len(data) // 2])  # a part fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(handle, data)

    def writev(handle: int, parts) -> int:
        if due(handle):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_writev(handle, parts)

    def durable_write(path, parts, sync=True):
        if str(tmp_path) in str(path) and state["armed"]:
            state["left"] -= 1
            if state["left"] == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real_durable(path, parts, sync)

    real_durable = durable.write
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "writev", writev)
    monkeypatch.setattr(durable, "write", durable_write)
    monkeypatch.setattr(ring.Ring, "claim", spaced_claim(ring.Ring.claim))
    failed = 0
    for at in range(60 if FULL else 24):
        run = tmp_path / f"run{at}"
        model = make_model()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = Recorder(run, model, every=1, thread=True)
            truth = {0: digest(model)}
            state.update(left=at, armed=True)
            for loss in updates(model, 12, pause=0.001):
                record(loss=loss)
                truth[record.step] = digest(model)
            record.close()
            state["armed"] = False
        failed += state["left"] < 0
        opened = open_run(run)
        assert list(verify(opened)) == [] and opened.problems == []
        stored = {e.step: e.content for e in opened.entries if e.path}
        assert all(truth[step] == content for step, content in stored.items())
        # One failed write costs one raw checkpoint and the pause after it, at most.
        assert len(truth) - len(stored) <= 2
        shutil.rmtree(run)
    assert failed > 15


def spaced_claim(real):
    """Every third checkpoint finds no slot: raw writes happen too."""
    calls = [0]

    def claim(self):
        calls[0] += 1
        return None if calls[0] % 3 == 0 else real(self)

    return claim


def test_leftovers_of_a_dead_attempt_are_taken_in_at_the_next_start(tmp_path: Path) -> None:
    attempt, truth = written_run(tmp_path, 10, raw_every=0)
    model = make_model()
    snapshot = Snapshot(model)
    layout, vectors = snapshot.take()
    rawfile.write(attempt, 20, layout, vectors, {"loss": 4.0})
    rawfile.write(attempt, 21, layout, vectors, {})
    damaged = attempt / "raw" / "step_000000000021.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\0\0\0\1")
    litter = attempt / "checkpoints" / f"step_000000000011.safetensors.1{durable.LITTER}"
    litter.write_bytes(b"half")
    Recorder(tmp_path / "run", model, start_step=50).close()
    wait_for_writer(tmp_path / "run" / "attempts" / "0002")
    run = open_run(tmp_path / "run")
    entries = {entry.step: entry for entry in run.entries}
    assert entries[20].content == digest(model) and entries[20].scalars["loss"] == 4.0
    assert entries[21].path is None  # said to be dropped, not believed
    assert not litter.exists()
    assert list(verify(run)) == [] and len(truth) == 10


@pytest.mark.parametrize("lacks", ["file", "table"])
def test_a_raw_file_that_cannot_be_read_now_is_taken_in_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    attempt, truth = written_run(tmp_path, 10, raw_every=0)
    model = make_model()
    layout, vectors = Snapshot(model).take()
    for step in (20, 21):
        rawfile.write(attempt, step, layout, vectors, {})
    plain, tables = rawfile.read_regular, tmp_path / "run" / "layouts"

    def busy(path: Path, most: int | None = None) -> bytes:
        if "20" in path.name or (lacks == "table" and path.parent == tables):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return plain(path, most)

    def adopt() -> None:
        writer.Writer(attempt).adopt_raw(lambda key: read_layout(tables / f"{key}.json"))

    home = rawfile if lacks == "file" else reader
    with monkeypatch.context() as patched:
        patched.setattr(home, "read_regular", busy)
        with pytest.raises((OSError, NdtError), match=r"Too many open files"):
            adopt()
    adopt()
    run = open_run(tmp_path / "run")
    assert all(run.entry(step).content == digest(model) for step in (20, 21))
    assert list(verify(run)) == [] and len(run.entries) == len(truth) + 2


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(path, {"step": 1})
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:5]))
    with pytest.raises(OSError):
        journal.append(path, {"step": 2})
    monkeypatch.undo()
    journal.append(path, {"step": 3})
    with path.open("ab") as file:
        file.write(b'{"step":4,"cr')  # its writer died here
    journal.append(path, {"step": 5})
    read = journal.read(path)
    assert [r["step"] for r in read.records] == [1, 3, 5] and read.bad_lines == [3]
