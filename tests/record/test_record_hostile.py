"""What a training loop should not pass, and passes: recording goes on, training never notices."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from recorded_training import digest, make_model, updates, wait_for_ring
from torch import nn

from ndt_offline import Recorder, open_run
from ndt_offline.errors import UsageError
from ndt_offline.record.dropped import Dropped, rest_of
from ndt_offline.record.handover import Handover
from ndt_offline.record.policy import LONGEST

pytestmark = pytest.mark.filterwarnings("ignore:ndt-offline. no probe")


class Rude:
    def __float__(self) -> float:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [torch.ones(3), "hi", [1], 1j, Rude(), torch.ones(1, device="meta"), 10**400],
    ids=["tensor", "text", "list", "complex", "rude", "meta", "huge"],
)
@pytest.mark.parametrize("name", ["loss", "grad_norm", "note"])
def test_a_scalar_that_is_none_costs_no_weights(tmp_path: Path, name: str, value: object) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    with pytest.warns(RuntimeWarning, match=f"(?s){name} is .*pass a number") as told:
        for _ in updates(model, 20):
            record(**{name: value})
    record.close()
    assert len(told) == 1 and record.policy.count == 0
    opened = open_run(tmp_path / "run")
    assert opened.steps == list(range(21)) and opened.entries[-1].content == digest(model)
    assert all(math.isnan(number) for number in opened.scalar(name)[1:])


def test_a_publication_that_fails_frees_its_slot(tmp_path: Path, monkeypatch) -> None:
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    real = Handover.publish
    failing = iter([True] * 12)

    def publish(self: Handover, *given: object) -> bool:
        if next(failing, False):
            raise ValueError("planted")
        return real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Handover, "publish", publish)
    with pytest.warns(RuntimeWarning, match="planted"):
        for loss in updates(model, 300):  # with pauses that grow to 64 checkpoints
            record(loss=loss)
    wait_for_ring(record)
    ring = record._delivery._handover.ring  # type: ignore[union-attr]
    assert [head[0] for head in ring._heads].count(1) == 0
    record.close()


def test_tensors_replaced_while_checkpoints_are_left_out_are_found(
    tmp_path: Path, monkeypatch
) -> None:
    """The norm of a checkpoint that is left out was a look at tensors that are no more."""
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    losses = updates(model, 3)
    with monkeypatch.context() as patch, pytest.warns(RuntimeWarning, match="planted"):
        patch.setattr(Handover, "claim", Mock(side_effect=OSError("planted")))
        record(loss=next(losses))
    record(loss=next(losses))  # left out, its norm is measured
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data + 1
    record(loss=next(losses), grad_norm=1.0)
    expected = digest(model)
    record.close()
    last = open_run(tmp_path / "run").entries[-1]
    assert (last.step, last.content) == (3, expected)


def test_a_gradient_norm_that_cannot_be_computed_is_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.warns(RuntimeWarning, match="gradient norm"):
        record(loss=1.0)
    record.close()
    assert open_run(tmp_path / "run").steps == [0, 1]


@pytest.mark.parametrize("name", ["every", "start_step", "dense"])
@pytest.mark.parametrize("value", [2.0, "2", None, -1, 2**46, torch.ones(2), math.nan])
def test_arguments_that_do_not_count_are_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        Recorder(tmp_path / "run", make_model(), **{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_and_torch_count(tmp_path: Path) -> None:
    model = make_model()
    counts = {"every": np.int64(3), "dense": torch.tensor(1), "start_step": np.uint8(2)}
    with Recorder(tmp_path / "run", model, thread=True, **counts) as record:  # type: ignore[arg-type]
        for step, loss in enumerate(updates(model, 6), start=3):
            record(loss=loss, step=np.int32(step))
    assert open_run(tmp_path / "run").steps == [2, 3, 6]


@pytest.mark.parametrize(
    "step",
    ["7", 7.5, 2**46, -1, [7], 1 << 20_000],
    ids=["text", "half", "large", "-1", "list", "huge"],
)
def test_a_step_that_is_none_is_ignored(tmp_path: Path, step: object) -> None:
    with Recorder(tmp_path / "run", make_model(), every=1, thread=True) as record:
        with pytest.warns(RuntimeWarning, match="ignored"):
            record(loss=1.0, step=step)  # type: ignore[arg-type]
        record(loss=1.0)
    assert open_run(tmp_path / "run").steps == [0, 1]


def test_a_sparse_buffer_and_a_lazy_layer_are_named(tmp_path: Path) -> None:
    model = make_model()
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(UsageError, match=r"adjacency.*cannot be recorded"):
        Recorder(tmp_path / "sparse", model)
    with pytest.raises(UsageError, match="not initialised"):
        Recorder(tmp_path / "lazy", nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.tensor([0, 1, 4]), "0 to 4 for 4 classes"),
        (torch.tensor([-1, 1, 2]), "-1 to 2 for 4 classes"),
        (torch.tensor([0, 1]), "shape"),
        (torch.zeros(3, 4, dtype=torch.int64), "shape"),
        (torch.tensor([0, 3, -100]), None),
        (torch.eye(4)[:3], None),
    ],
)
def test_labels_that_cannot_fit_are_told_of_at_the_start(tmp_path: Path, labels, told) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Recorder(tmp_path / "run", make_model(), probe=(torch.ones(3, 16), labels)).close()
    said = [str(w.message) for w in caught if "labels do not fit" in str(w.message)]
    assert len(said) == (told is not None) and all(told in text for text in said)


@pytest.mark.parametrize("columns", [20, 250, 400])
def test_steps_dropped_for_long_are_all_told_and_hold_nothing_up(
    tmp_path: Path, monkeypatch, columns: int
) -> None:
    """More than one message holds, or two long rows: once the disk is well, nothing goes raw."""
    record = Recorder(tmp_path / "run", make_model(), every=1, thread=True)
    numbers = {f"scalar_{n}": 1.0 / 3 for n in range(columns)}
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(record._delivery, "_take", Mock(side_effect=full))
        for _ in range(700):
            record(loss=1.0, **numbers)
    assert record.summary().dropped == 700
    for _ in range(200):  # the first few of them are left out too
        record(loss=1.0, **numbers)
        wait_for_ring(record)
    summary = record.summary()
    assert summary.raw == 0 and summary.recorded + summary.dropped == 901
    assert 700 <= summary.dropped <= 700 + LONGEST
    record.close()
    assert record.summary().dropped == summary.dropped
    run = open_run(tmp_path / "run")
    assert [e.step for e in run.entries] == list(range(901))
    assert [e.step for e in run.entries if e.path is None] == list(range(1, summary.dropped + 1))
    if columns == 20:  # told one by one: with their scalars
        assert run.scalar("scalar_7")[1:].tolist() == [1.0 / 3] * 900


def test_steps_dropped_up_to_the_end_are_all_told(tmp_path: Path, monkeypatch) -> None:
    record = Recorder(tmp_path / "run", make_model(), every=1, thread=True)
    full = OSError(28, "No space left on device")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr(record._delivery, "_take", Mock(side_effect=full))
        for _ in range(700):
            record(loss=1.0, **{f"scalar_{n}": 1.0 / 3 for n in range(20)})
    assert record.summary().dropped == 700
    record.close()
    assert record.summary().dropped == 700
    run = open_run(tmp_path / "run")
    assert [e.step for e in run.entries if e.path is None] == list(range(1, 701))


@pytest.mark.parametrize("strides", [(5,), (1, 5, 5, 7)])
def test_dropped_steps_come_out_as_they_went_in(strides: tuple[int, ...]) -> None:
    dropped, step, steps = Dropped(), 0, []
    for n in range(12_000):
        step += strides[n * len(strides) // 12_000]
        steps.append(step)
        dropped.add(step, {"loss": float(n)})
    said = json.loads(json.dumps(dropped.rest()))
    assert dropped.count == dropped.untold == 12_000 and len(json.dumps(said)) < 16_000
    found = list(rest_of(said))
    assert (
        [s for s, _ in found] == steps
        and tuple(found[3]) == (steps[3], {"loss": 3.0})
        and said == {}
    )


def test_warnings_as_errors_do_not_reach_training(tmp_path: Path, capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = Recorder(tmp_path / "run", make_model(), every=1, thread=True)  # no probe
        record(loss=float("nan"))
        record(step=1)
        record.close()
        told = capsys.readouterr().err
        assert all(what in told for what in ("no probe", "not finite", "was ignored"))
        with pytest.raises(RuntimeWarning):
            Recorder(tmp_path / "other", make_model(), on_error="raise", thread=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_in_the_place_of_the_probe_is_not_waited_for(tmp_path: Path) -> None:
    probe = torch.ones(3, 16), torch.zeros(3, dtype=torch.int64)
    Recorder(tmp_path / "run", make_model(), probe=probe, thread=True).close()
    (tmp_path / "run" / "probe.safetensors").unlink()
    os.mkfifo(tmp_path / "run" / "probe.safetensors")
    with pytest.warns(RuntimeWarning, match="nothing is recorded"):
        Recorder(tmp_path / "run", make_model(), probe=probe, thread=True)
