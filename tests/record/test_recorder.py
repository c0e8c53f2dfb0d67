"""The Recorder: what is recorded is what was trained, and training never notices."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from recorded_training import digest, make_model, updates, wait_for_ring, wait_for_writer
from torch import nn

from ndt_offline import Recorder, open_run
from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.record.attempts import keep_layout, open_attempt, open_run_folder
from ndt_offline.record.ring import Ring
from ndt_offline.record.scalars import gradient_norm
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.record.writer import Writer
from ndt_offline.run.maintain import verify

pytestmark = pytest.mark.filterwarnings("ignore:ndt-offline. no probe")


def trained(run: Path, count: int, model: nn.Module | None = None, **options: object) -> dict:
    """Record a training; {step: content} of every update, and the recorder's last state."""
    model = model or make_model()
    record = Recorder(run, model, **options)  # type: ignore[arg-type]
    states = {record.step: digest(model)}
    for loss in updates(model, count):
        record(loss=loss)
        states[record.step] = digest(model)
    record.close()
    return states


def trained_without_writer(run: Path) -> tuple[Recorder, subprocess.Popen, dict[int, str]]:
    """30 updates recorded while the writer's process is stopped, and the states as above."""
    model = make_model()
    record = Recorder(run, model, every=1)
    process = record._delivery._handover._process
    os.kill(process.pid, signal.SIGSTOP)
    states = {0: digest(model)}
    for loss in updates(model, 30):
        record(loss=loss)
        states[record.step] = digest(model)
    return record, process, states


def recorded(run: Path) -> dict[int, str]:
    opened = open_run(run)
    assert opened.problems == []
    for step in opened.steps:
        opened.checkpoint(step)  # both checksums
    return {entry.step: entry.content for entry in opened.entries}


@pytest.mark.parametrize("thread", [False, True])
def test_what_is_recorded_is_what_was_trained(tmp_path: Path, thread: bool) -> None:
    states = trained(tmp_path / "run", 203, thread=thread)
    expected = {step: state for step, state in states.items() if step % 5 == 0}
    assert recorded(tmp_path / "run") == expected


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    models = make_model(), make_model()
    trained(tmp_path / "run", 60, models[0], every=3)
    for _ in updates(models[1], 60):
        pass
    for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_dense_start_and_last_step(tmp_path: Path) -> None:
    trained(tmp_path / "run", 23, dense=7, every=5, last=True)
    assert list(recorded(tmp_path / "run")) == [*range(8), 10, 15, 20, 23]


def test_scalars_reach_the_journal(tmp_path: Path) -> None:
    model = make_model()
    with Recorder(tmp_path / "run", model, every=1) as record:
        for _ in updates(model, 2):
            record(loss=torch.tensor(2.5), grad_norm=3.0, lr=0.5, val_loss=torch.tensor(7.0))
    line = open_run(tmp_path / "run").journal[-1]
    assert (line["loss"], line["grad_norm"], line["grad_norm_from"]) == (2.5, 3.0, "given")
    assert line["scalars"] == {"lr": 0.5, "val_loss": 7.0}


def test_the_gradient_norm_is_measured_where_it_is_not_given(tmp_path: Path) -> None:
    model = make_model()
    with Recorder(tmp_path / "run", model, every=1) as record:
        for loss in updates(model, 1):
            record(loss=loss)
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert open_run(tmp_path / "run").journal[-1]["grad_norm"] == pytest.approx(float(grads.norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_millions_of_gradients(dtype: torch.dtype) -> None:
    shapes = [(1500, 2000), (2000,), (700, 500), (0,)]
    parameters = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 0.3 + number)
    exact = math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters))
    assert float(gradient_norm(parameters)) == pytest.approx(exact, rel=2e-6)


def test_the_norm_leaves_out_what_was_frozen_in_mid_training(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)  # as after the head alone goes on
    with Recorder(tmp_path / "run", model, every=1) as record:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(4, 16)).sum().backward()
            optimizer.step()
            record()
            model[0].requires_grad_(False)  # its last gradient stays where it is
    assert float(model[0].weight.grad.norm()) > 0
    grads = torch.cat([p.grad.flatten() for p in model[2].parameters()])
    norm = open_run(tmp_path / "run").journal[-1]["grad_norm"]
    assert norm == pytest.approx(float(grads.norm()), rel=1e-6)
    model.requires_grad_(False)
    assert gradient_norm(model.parameters()) is None


def test_tied_weights_are_stored_once_and_come_back_twice(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    Recorder(tmp_path / "run", model).close()
    state = open_run(tmp_path / "run").checkpoint(0)
    assert torch.equal(state["a.weight"], state["b.weight"]) and len(state) == 4
    assert sum(t.nbytes for t in Snapshot(model).layout.tensors) == 4 * (64 + 16)


def test_parameters_may_be_replaced_and_added(tmp_path: Path) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    states = {0: digest(model)}

    def step() -> None:
        record()
        states[record.step] = digest(model)

    with torch.no_grad():
        model[0].weight = nn.Parameter(model[0].weight * 2)
        step()
        model[2].bias.data = torch.ones(4)
        step()
        model.add_module("adapter", nn.Linear(300, 40))  # larger than the ring's slots
        step()
        model[0].weight.add_(1)
        step()
        model[2] = nn.Linear(32, 4).double()
        step()
    record.close()
    assert recorded(tmp_path / "run") == states
    assert "adapter.weight" in open_run(tmp_path / "run").checkpoint(3)


def test_dtypes_buffers_and_views(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4).bfloat16(), nn.Linear(4, 4).half())
    model.register_buffer("steps", torch.tensor(3))
    model.register_buffer("turned", torch.arange(6.0).reshape(2, 3).t())
    model.register_buffer("odd", torch.tensor([float("nan"), -0.0, float("inf")]))
    model.register_buffer("none", torch.empty(0, 3))
    model.register_buffer("hidden", torch.ones(2), persistent=False)
    Recorder(tmp_path / "run", model).close()
    state = open_run(tmp_path / "run").checkpoint(0)
    for name, value in model.state_dict().items():
        assert state[name].dtype == value.dtype and state[name].shape == value.shape
        same = state[name].contiguous().view(-1), value.contiguous().view(-1)
        assert bytes(same[0].view(torch.uint8).numpy()) == bytes(same[1].view(torch.uint8).numpy())
    assert set(state) == set(model.state_dict())


def test_a_restart_hides_and_another_trainer_is_refused(tmp_path: Path, capsys) -> None:
    first = trained(tmp_path / "run", 20)
    model = make_model()
    record = Recorder(tmp_path / "run", model, start_step=10)
    assert "hides 3 checkpoints" in capsys.readouterr().err
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # opens the lock's file, and closes it
    code = (
        "import sys; sys.path.append(sys.argv[2]); from recorded_training import *;"
        "Recorder(sys.argv[1], make_model())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(Path(__file__).parent)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert other.returncode == 1 and "another training is recording" in other.stderr
    record.close()
    found = recorded(tmp_path / "run")
    assert list(found) == [0, 5, 10] and found[5] == first[5] and found[10] == digest(model)


def test_a_worker_that_outlives_its_trainer_holds_no_lock(tmp_path: Path) -> None:
    trainer = os.fork()
    if trainer == 0:
        warnings.simplefilter("ignore")
        Recorder(tmp_path / "run", make_model())
        if (worker := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        (tmp_path / "worker").write_text(str(worker))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(trainer, 0)
    Recorder(tmp_path / "run", make_model(), start_step=5).close()
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)
    assert 5 in recorded(tmp_path / "run")


def test_a_recorder_that_was_left_open_is_closed_by_the_next(tmp_path: Path) -> None:
    def train(updates_done: int) -> Recorder:
        model = make_model()
        record = Recorder(tmp_path / "run", model, every=1)
        for loss in updates(model, updates_done):
            record(loss=loss)
        return record

    left = train(7)
    with pytest.warns(RuntimeWarning, match="was still open"):
        train(3).close()
    assert [attempt.closed for attempt in open_run(tmp_path / "run").attempts] == [True, True]
    with pytest.warns(RuntimeWarning, match="it is closed: nothing is recorded"):
        left(loss=1.0, step=2)  # said first, though steps must increase
    left(loss=1.0)  # said once
    assert len(recorded(tmp_path / "run")) == 4
    assert not list(tmp_path.rglob("raw/*"))


def test_an_interrupt_while_it_closes_leaves_the_run_free(tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    record = Recorder(tmp_path / "run", make_model())
    handover = record._delivery._handover  # type: ignore[union-attr]
    with monkeypatch.context() as patched:
        patched.setattr(handover, "stop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record.close()
    Recorder(tmp_path / "run", make_model(), start_step=5).close()
    handover.stop()
    assert 5 in recorded(tmp_path / "run")


def test_training_may_change_the_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_model()
    record = Recorder("run", model, every=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for step, loss in enumerate(updates(model, 60)):
        record(loss=loss)
        if step == 30:
            model.register_buffer("late", torch.zeros(3))
    record.close()
    assert record.summary().dropped == 0 and len(recorded(tmp_path / "run")) == 61
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("path", [None, 5, b"run", "", "a\0b"])
def test_what_is_no_path_is_a_usage_error(path: object) -> None:
    with pytest.raises(UsageError, match="name of a directory"):
        Recorder(path, make_model())  # type: ignore[arg-type]


def test_conjugated_and_renamed_tensors(tmp_path: Path) -> None:
    model = make_model()
    model.register_buffer("turned", torch.tensor([1 + 2j]))
    model.register_buffer("mirror", model.turned.conj())
    with Recorder(tmp_path / "run", model, every=1) as record:
        model[0] = nn.Sequential(model[0])
        record(loss=1.0)
    for step, name in ((0, "0.weight"), (1, "0.0.weight")):
        state = open_run(tmp_path / "run").checkpoint(step)
        assert name in state and torch.equal(state["mirror"], model.mirror)
        assert not torch.equal(state["mirror"], state["turned"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_leaves_other_dtypes_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    """The writer is handed the ring's memory, which the trainer uses again."""
    norms = [nn.BatchNorm1d(8) for _ in range(20)]
    model = nn.Sequential(nn.Linear(8, 8), *norms).to(dtype)
    lock = open_run_folder(tmp_path / "run")
    lock.drop()
    attempt = open_attempt(tmp_path / "run", {"start_step": 0, "every": 1})
    snapshot, states = Snapshot(model), {}
    keep_layout(tmp_path / "run", snapshot.layout)
    writer, slot = Writer(attempt, "q12"), snapshot.take()[1]
    for step in range(40):
        model(torch.randn(16, 8, dtype=dtype))
        layout, vectors = snapshot.take(slot)
        writer.write(step, step, layout, vectors, {})
        states[step] = {k: v.clone() for k, v in model.state_dict().items()}
    writer.close({})
    run = open_run(tmp_path / "run")
    assert list(verify(run)) == []
    for step, state in states.items():
        found = run.checkpoint(step)
        assert all(torch.equal(found[k], v) for k, v in state.items() if v.dtype != torch.float32)


def test_an_interrupt_costs_no_slot(tmp_path: Path) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    ring = record._delivery._handover.ring  # type: ignore[union-attr]
    for _ in range(ring.slots):
        ring.claim()
    assert ring.claim() is None
    for loss in updates(model, 3):
        record(loss=loss)
    record.close()
    assert record.summary().raw == 0 and len(recorded(tmp_path / "run")) == 4


def test_a_forked_copy_does_nothing(tmp_path: Path) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    said = len(record.policy._warned)
    if (child := os.fork()) == 0:
        record(step=77)
        record.close()
        record(step=0)  # neither too low nor closed: not its business
        os._exit(len(record.policy._warned) - said)
    assert os.waitpid(child, 0)[1] == 0
    record()
    record.close()
    assert list(recorded(tmp_path / "run")) == [0, 1]


def test_a_full_ring_means_raw_files_and_nothing_is_lost(tmp_path: Path) -> None:
    record, process, states = trained_without_writer(tmp_path / "run")
    os.kill(process.pid, signal.SIGCONT)
    record.close()
    summary = record.summary()
    assert summary.recorded + summary.raw == 31 and summary.raw >= 22 and summary.dropped == 0
    assert "raw (coded in pauses and at the end)" in str(summary)
    attempt = tmp_path / "run" / "attempts" / "0001"
    wait_for_writer(attempt)
    assert recorded(tmp_path / "run") == states
    assert list((attempt / "raw").iterdir()) == []


def test_raw_ones_are_coded_while_training_pauses(tmp_path: Path, monkeypatch) -> None:
    record, process, states = trained_without_writer(tmp_path / "run")
    os.kill(process.pid, signal.SIGCONT)
    raw = tmp_path / "run" / "attempts" / "0001" / "raw"
    end = time.monotonic() + 180
    while list(raw.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(raw.iterdir()) == []
    record.close()
    found = recorded(tmp_path / "run")
    assert list(found) == list(range(31)) and found[30] == states[30]


def test_a_writer_that_dies_is_started_again(tmp_path: Path) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    states = {0: digest(model)}
    for loss in updates(model, 60, pause=0.003):
        record(loss=loss)
        states[record.step] = digest(model)
        if record.step in (20, 40):
            record._delivery._handover._process.kill()
    record.close()
    assert recorded(tmp_path / "run") == states
    assert record._delivery._handover.restarts >= 1


def test_the_writer_loads_no_torch() -> None:
    code = "import sys, ndt_offline.record.writer_process; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_script_without_guard_or_close_is_recorded(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from ndt_offline import Recorder\n"
        "model = torch.nn.Linear(4, 4)\n"
        "record = Recorder('run', model, every=1)\n"
        "for _ in range(5):\n"
        "    record(loss=1.0)\n"
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, capture_output=True)
    assert list(recorded(tmp_path / "run")) == list(range(6))


def test_steps_that_do_not_increase_are_ignored_with_one_warning(tmp_path: Path) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    with pytest.warns(RuntimeWarning, match="was ignored") as caught:
        for step in (1, 2, 1, 2, 3):
            record(step=step)
    assert len(caught) == 1
    record.close()
    assert list(recorded(tmp_path / "run")) == [0, 1, 2, 3]


def test_a_loss_that_is_not_finite_is_recorded_and_told_once(tmp_path: Path) -> None:
    record = Recorder(tmp_path / "run", make_model(), every=1)
    with pytest.warns(RuntimeWarning, match="not finite") as caught:
        record(loss=float("nan"))
        record(loss=float("inf"))
    assert len(caught) == 1
    record.close()
    run = open_run(tmp_path / "run")
    assert [line.get("loss") for line in run.journal] == [None, "nan", "inf"]


def test_a_directory_that_cannot_be_written_warns(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="nothing is recorded"):
        record = Recorder(tmp_path / "file" / "run", make_model())
    record(loss=1.0)
    record.close()
    assert record.summary().failures == 1
    with pytest.raises(OSError), pytest.warns(RuntimeWarning):
        Recorder(tmp_path / "file" / "run", make_model(), on_error="raise")


def test_rank_one_records_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    record = Recorder(tmp_path / "run", make_model())
    record(loss=1.0)
    record.close()
    assert not (tmp_path / "run").exists()


def test_mistakes_raise_at_construction(tmp_path: Path) -> None:
    for options in ({"every": 0}, {"loss": "hinge"}, {"on_error": "no"}, {"precision": "q3"}):
        with pytest.raises(UsageError):
            Recorder(tmp_path / "run", make_model(), **options)


def test_the_umask_is_honoured(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        trained(tmp_path / "run", 5)
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert modes == {0o640}


def test_precision_keeps_what_it_promises(tmp_path: Path) -> None:
    model = make_model()
    exact = {0: {k: v.clone() for k, v in model.state_dict().items()}}
    record = Recorder(tmp_path / "run", model, every=1, precision="q12")
    for loss in updates(model, 70):
        wait_for_ring(record, left=5)  # on a busy machine too
        record(loss=loss)
        exact[record.step] = {k: v.clone() for k, v in model.state_dict().items()}
    record.close()
    run = open_run(tmp_path / "run")
    lines = {line["step"]: line for line in run.journal}
    assert sum(line["kind"] == "checkpoint" for line in lines.values()) > 40
    for step, state in exact.items():
        for name, value in run.checkpoint(step).items():
            error = (value - state[name]).double()
            bound = lines[step].get("error_max", 0.0)
            assert float(error.abs().max()) <= bound
            assert bound <= 2.0**-11.5 * max(
                float(v.square().mean().sqrt()) for v in state.values()
            )
            if value.ndim == 2:
                spectral = float(torch.linalg.matrix_norm(error, 2))
                assert spectral <= lines[step].get("error_spectral", 0.0)


def test_the_trainer_may_die_and_start_again_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, warnings; warnings.simplefilter('ignore');"
        "sys.path.append(sys.argv[2]); from recorded_training import *;"
        "m = make_model(); r = Recorder(sys.argv[1], m, every=1);"
        "[r(loss=l) for l in updates(m, 40)]; print(digest(m), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    record = Recorder(tmp_path / "run", make_model(), start_step=100)
    record.close()
    wait_for_writer(tmp_path / "run" / "attempts" / "0001")
    found = recorded(tmp_path / "run")
    assert list(found) == [*range(41), 100] and found[40] == out.stdout.strip()


def test_warnings_are_not_repeated(tmp_path: Path, monkeypatch) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    monkeypatch.setattr(
        record._delivery, "_take", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(40):
            record(loss=1.0)
    record.close()
    assert len(caught) == 1 and "No space left" in str(caught[0].message)
    summary = record.summary()
    # Tried at 1, 3, 6, 11, 20, 37: pauses of 1, 2, 4, 8, 16 checkpoints between.
    assert summary.failures == 6 and summary.dropped == 40 and summary.recorded == 1
    run = open_run(tmp_path / "run")
    assert [e.step for e in run.entries if e.path is None] == list(range(1, 41))


def test_compiled_parts_keep_their_plain_names(tmp_path: Path) -> None:
    model = nn.Sequential(torch.compile(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4))
    Recorder(tmp_path / "run", torch.compile(model)).close()
    state = open_run(tmp_path / "run").checkpoint(0)
    assert set(state) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_without_memory_for_a_ring_everything_goes_raw(tmp_path: Path, monkeypatch) -> None:
    real = os.posix_fallocate

    def no_room(handle: int, at: int, size: int) -> None:
        if size > 100_000:
            raise OSError(28, "No space left on device")
        real(handle, at, size)

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    states = trained(tmp_path / "run", 12, make_model(2000), every=1)
    assert recorded(tmp_path / "run") == states
    lines = open_run(tmp_path / "run").attempts[0].records
    assert [line["step"] for line in lines if line["kind"] == "raw"] == list(states)


def test_sharded_parameters_are_refused(tmp_path: Path) -> None:
    model = make_model()

    class DTensor(nn.Parameter):
        pass

    model[0].weight = DTensor(model[0].weight.data)
    with pytest.raises(RefusedError, match="sharded"):
        Recorder(tmp_path / "run", model)
    assert not (tmp_path / "run").exists()


def test_checkpoints_that_come_in_another_order_are_coded_on_earlier_ones(tmp_path: Path) -> None:
    states = {}
    lock = open_run_folder(tmp_path / "run")
    lock.drop()
    attempt = open_attempt(tmp_path / "run", {"start_step": 0, "every": 1})
    model = make_model()
    snapshot = Snapshot(model)
    keep_layout(tmp_path / "run", snapshot.layout)
    out, taken = Writer(attempt), {}
    for step, _ in enumerate(updates(model, 6)):
        layout, vectors = snapshot.take()
        taken[step], states[step] = {k: v.copy() for k, v in vectors.items()}, digest(model)
    for step in (0, 3, 1, 2, 5, 4):
        out.write(step, step, layout, taken[step], {})
    out.close({"trainer": "closed"})
    assert recorded(tmp_path / "run") == states


def test_a_slot_published_during_a_look_does_not_overtake(tmp_path: Path) -> None:
    ring = Ring.make(3, 64, tmp_path / "ring")

    class Racing(list):
        """Heads, of which the first is published when the look has passed it."""

        looks = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.looks += 1
            for slot, head in enumerate(list.__iter__(self)):
                yield head
                if self.looks == 1 and slot == 0:
                    for number, late in enumerate((0, 1)):
                        ring.publish(late, number, number, {})

    assert [ring.claim(), ring.claim()] == [0, 1]
    ring._heads = Racing(ring._heads)
    assert ring.waiting() == [0, 1]
