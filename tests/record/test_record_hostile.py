"""What a training loop should not pass, and passes: recording goes on, training never notices."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from recorded_training import digest, make_model, updates
from torch import nn

from ndt_offline import Recorder, open_run
from ndt_offline.record.handover import Handover

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
    ring = record._delivery._handover.ring  # type: ignore[union-attr]
    while ring.waiting():
        pass
    assert [int(ring._head(slot)[0]) for slot in range(ring.slots)].count(1) == 0
    record.close()


def test_a_gradient_norm_that_cannot_be_computed_is_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    record = Recorder(tmp_path / "run", model, every=1, thread=True)
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.warns(RuntimeWarning, match="gradient norm"):
        record(loss=1.0)
    record.close()
    assert open_run(tmp_path / "run").steps == [0, 1]
