"""How a recording ends, and how a ring does: what is coded when, what is counted, what is said."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from recorded_training import (
    digest,
    make_model,
    updates,
    wait_for_ring,
    wait_for_writer,
)
from torch import nn

from ndt_offline import Recorder, open_run
from ndt_offline.execute.watch import follow
from ndt_offline.record import handover, rawfile, writer_process
from ndt_offline.record.attempts import history, keep_layout, open_attempt, open_run_folder
from ndt_offline.record.leftovers import take_over
from ndt_offline.record.ring import Ring
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.record.writer import Writer
from ndt_offline.record.writer_process import Service
from ndt_offline.run.maintain import verify

pytestmark = pytest.mark.filterwarnings("ignore:ndt-offline. no probe")


def with_raws(run: Path, **options: object) -> tuple[Recorder, nn.Module, dict[int, str]]:
    """A recording at work whose ring was full for a while; and what it was given."""
    model = make_model()
    record = Recorder(run, model, every=1, **options)
    states = {0: digest(model)}
    writer = record._delivery._handover._process
    os.kill(writer.pid, signal.SIGSTOP)
    for loss in updates(model, 30):
        record(loss=loss)
        states[record.step] = digest(model)
    os.kill(writer.pid, signal.SIGCONT)
    return record, model, states


def until(done: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_counted(run: Path, record: Recorder, states: dict[int, str], raw: int) -> None:
    """Summary and closing line agree with the files and with what was recorded."""
    attempt = run / "attempts" / "0001"
    opened = open_run(run)
    assert {e.step: e.content for e in opened.entries} == states and opened.problems == []
    assert list(verify(opened)) == [] and list((attempt / "raw").iterdir()) == []
    files = sum(path.stat().st_size for path in (attempt / "checkpoints").iterdir())
    weights = sum(sum(t.nbytes for t in opened.checkpoint(s).values()) for s in opened.steps)
    summary = record.summary()
    counts = (summary.recorded, summary.raw, summary.bytes, summary.stored_bytes)
    assert counts == (len(states) - raw, raw, weights, files)
    (line,) = [r for r in opened.attempts[0].records if r["kind"] == "close"]
    names = ("recorded", "raw", "bytes", "stored_bytes")
    assert tuple(line[name] for name in names) == counts


def test_a_larger_ring_is_not_waited_for_while_raw_ones_are_coded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record, model, states = with_raws(run)
    raws = record.summary().raw
    with torch.no_grad():
        model.add_module("adapter", nn.Linear(300, 40))  # larger than the ring's slots
    record()
    states[record.step] = digest(model)
    raw = run / "attempts" / "0001" / "raw"
    assert raws > 20 and len(list(raw.iterdir())) >= raws
    until(lambda: not list(raw.iterdir()))  # in a pause, as if the ring were the first
    raws = record.summary().raw
    record.close()
    wait_for_writer(run / "attempts" / "0001")
    assert_counted(run, record, states, raws)


@pytest.mark.parametrize("paused", [True, False])
def test_raw_ones_are_rounded_where_the_recording_asked(tmp_path: Path, paused: bool) -> None:
    run = tmp_path / "run"
    record, _, states = with_raws(run, precision="q12")
    raw = run / "attempts" / "0001" / "raw"
    assert record.summary().raw > 20
    if paused:
        until(lambda: not list(raw.iterdir()))
    record.close()
    opened = open_run(run)
    assert list(verify(opened)) == [] and list(raw.iterdir()) == []
    assert opened.steps == list(states) and (opened.scalar("error_max") > 0.0).all()
    assert not {entry.content for entry in opened.entries} & set(states.values())


def test_who_watches_sees_what_was_rounded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record, _, _ = with_raws(run, precision="q12")
    seen = follow(run, poll=0.05, idle=60)
    first = next(seen)
    record.close()
    last = [first, *seen][-1]
    assert [e.content for e in last.entries] == [e.content for e in open_run(run).entries]


def test_what_was_coded_in_a_pause_is_counted_as_it_is_now(tmp_path: Path) -> None:
    record, model, states = with_raws(tmp_path / "run")
    until(lambda: not list((tmp_path / "run" / "attempts" / "0001" / "raw").iterdir()))
    raws = record.summary().raw
    record._delivery._handover._process.kill()  # the next one counts from the journal
    record._delivery._handover._process.wait()
    time.sleep(handover.LOOK)
    record(loss=1.0)
    states[record.step] = digest(model)
    record.close()
    assert_counted(tmp_path / "run", record, states, raws)


@pytest.mark.parametrize("problem", [MemoryError(), OSError(28, "No space left on device")])
def test_raw_ones_that_cannot_be_coded_are_said(
    tmp_path: Path, monkeypatch, problem: Exception
) -> None:
    """The run is closed all the same, and the training is told."""

    def failing(attempt: Path, digits: int | None) -> Iterator[int]:
        raise problem
        yield 0

    monkeypatch.setattr(handover, "Service", partial(Service, defer=True))
    monkeypatch.setattr(writer_process, "code_raw", failing)
    monkeypatch.setattr(writer_process, "PAUSE", 0.0)
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    wait_for_ring(record)
    with monkeypatch.context() as patch:
        patch.setattr(Ring, "claim", lambda self: None)
        record(loss=1.0)
    ring = record._delivery._handover.ring
    until(lambda: ring["failures"] == 1)  # in a pause
    with pytest.warns(RuntimeWarning, match="No space left|MemoryError"):
        record.close()
    assert ring["failures"] == 2 and record.policy.count >= 1
    assert open_run(tmp_path / "run").attempts[0].closed


def test_the_failures_of_a_ring_that_is_replaced_are_not_forgotten(tmp_path: Path) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    delivery = record._delivery
    delivery._handover.ring["failures"] = 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record()
    assert (record.policy.count, delivery._failures_seen) == (1, 3)
    model.add_module("adapter", nn.Linear(300, 40))
    record()
    delivery._handover.ring["failures"] += 1
    record()
    record.close()
    assert (record.policy.count, delivery._failures_seen) == (2, 4)


@pytest.mark.parametrize("closing", [0, 1])
def test_the_writer_hurries_only_where_the_trainer_waits(tmp_path: Path, closing: int) -> None:
    attempt = tmp_path / "attempts" / "0001"
    attempt.mkdir(parents=True)
    ring = Ring.make(2, 64, tmp_path / "ring")
    ring["closing"] = ring["final"] = closing
    hurry = Mock(return_value=True)
    assert Service(ring, attempt, None).run(time.sleep, lambda: False, hurry)
    assert hurry.call_count == closing


@pytest.mark.parametrize("adopted", [False, True])
def test_the_next_start_ends_what_was_killed(tmp_path: Path, adopted: bool) -> None:
    """Raw files without a line, and a writer that was killed while it coded them."""
    run, model = tmp_path / "run", make_model()
    open_run_folder(run).drop()
    attempt = open_attempt(run, {"start_step": 0, "every": 1})
    snapshot, states = Snapshot(model), dict[int, str]()
    keep_layout(run, snapshot.layout)
    out = Writer(attempt)
    for step, _ in enumerate(updates(model, 12)):
        states[step] = digest(model)
        if step < 4:
            out.write(step, step, *snapshot.take(), {})
        else:
            rawfile.write(attempt, step, *snapshot.take(), {})
    if adopted:
        out.adopt_raw(lambda key: snapshot.layout)
    out.close()
    assert "attempt 0001 has no end" in "".join(history(run, 100))
    take_over(attempt.parent, before=2)
    opened = open_run(run)
    assert {e.step: e.content for e in opened.entries} == states and list(verify(opened)) == []
    assert list((attempt / "raw").iterdir()) == [] and history(run, 100) == []
    last = opened.attempts[0].records[-1]
    assert (last["kind"], last["trainer"], last["recorded"], last["raw"]) == ("close", "died", 4, 8)
    assert last["stored_bytes"] == sum(
        p.stat().st_size for p in (attempt / "checkpoints").iterdir()
    )
    take_over(attempt.parent, before=2)
    assert open_run(run).attempts[0].size == opened.attempts[0].size  # nothing to add


def test_trainer_and_writer_killed_with_raw_files(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    code = (
        "import sys, warnings; from pathlib import Path; warnings.simplefilter('ignore');"
        "sys.path.append(sys.argv[1]); from recorded_training import *;"
        "record_forever(Path(sys.argv[2]), Path(sys.argv[3]), 2)"
    )
    given = [str(path) for path in (Path(__file__).parent, run, tmp_path / "told")]
    trainer = subprocess.Popen([sys.executable, "-c", code, *given])
    raw, writer = run / "attempts" / "0001" / "raw", ""
    try:
        until(lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text())
        (writer,) = Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children").read_text().split()
        os.kill(int(writer), signal.SIGSTOP)
        until(lambda: len(list(raw.glob("step_*.safetensors"))) >= 20)
    finally:
        trainer.kill()
        trainer.wait()
        if writer:
            os.kill(int(writer), signal.SIGKILL)
    told = dict(line.split() for line in (tmp_path / "told").read_text().splitlines())
    for start in (10_000, 20_000):
        Recorder(run, make_model(), start_step=start).close()
        wait_for_writer(run / "attempts" / f"000{start // 10_000 + 1}")
        said = capsys.readouterr().err
        assert ("attempt 0001 has no end" in said) == (start == 10_000)
    opened = open_run(run)
    found = {str(e.step): e.content for e in opened.entries if e.path}
    assert len([step for step in told if step not in found]) <= 8  # the ring's
    assert all(found.get(step, content) == content for step, content in told.items())
    assert opened.attempts[0].closed and list(raw.iterdir()) == [] and list(verify(opened)) == []


@pytest.mark.parametrize("thread", [False, True])
def test_an_interrupt_while_the_writer_is_woken_locks_nothing(
    tmp_path: Path, monkeypatch, thread: bool
) -> None:
    """Nothing is held between two steps of waking it: the next ones do, and `close` ends."""
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1, thread=thread)
    ring = record._delivery._handover.ring
    until(lambda: ring["asleep"])

    def interrupted(handle: int, data: bytes) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record(loss=1.0)
    for _ in range(20):
        record(loss=1.0)
    started = time.monotonic()
    record.close()
    assert time.monotonic() - started < 60
    assert open_run(tmp_path / "run").steps == list(range(22))


def test_a_thread_that_wrote_leaves_no_descriptor_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    Recorder(tmp_path / "warm", make_model(), thread=True).close()
    gc.collect()
    before = count()
    for number in range(5):
        Recorder(tmp_path / f"run{number}", make_model(), thread=True).close()
    gc.collect()
    assert count() <= before
