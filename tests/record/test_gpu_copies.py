"""Copies that are still on their way, with stand-ins for the driver: no GPU is needed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, ClassVar

import pytest
from recorded_training import digest, make_model, updates

from ndt_offline import Recorder, open_run
from ndt_offline.record.delivery import Delivery
from ndt_offline.record.pinning import Pin
from ndt_offline.record.ring import CLAIMED, Ring

pytestmark = pytest.mark.filterwarnings("ignore:ndt-offline. no probe")


class Runtime:
    """What `torch.cuda.cudart()` has of it."""

    def __init__(self, result: Any = 0) -> None:
        self.result = result
        self.locked: dict[int, int] = {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        assert address % 4096 == 0 and address not in self.locked
        if not self.result:
            self.locked[address] = size
        return self.result

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


def test_a_ring_is_locked_once_and_the_next_one_instead(tmp_path: Path) -> None:
    first, second = (Ring.make(2, 100_000, tmp_path / name) for name in "ab")
    runtime, pin = Runtime(), Pin()
    assert pin.hold(first, runtime) and pin.hold(first, runtime)
    assert list(runtime.locked.values()) == [len(first.memory)]
    assert pin.hold(second, runtime) and len(runtime.locked) == 1
    pin.drop(runtime)
    pin.drop(runtime)
    assert not runtime.locked and not pin.held


@pytest.mark.parametrize("result", [2, RuntimeError("no driver"), OSError(errno.ENOMEM, "limit")])
def test_memory_that_cannot_be_locked_is_used_as_it_is(tmp_path: Path, result) -> None:
    ring, pin = Ring.make(2, 1000, tmp_path / "ring"), Pin()
    assert not pin.hold(ring, Runtime(result)) and not pin.hold(ring, Runtime())
    pin.drop(Runtime())


class Event:
    """Done when it is told so, or waited for."""

    made: ClassVar[list[Event]] = []

    def __init__(self) -> None:
        self.done = self.waited = False
        self.made.append(self)

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.waited = self.waited or not self.done
        self.done = True


def test_a_copy_is_published_when_it_has_landed_in_order(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Delivery, "_event", lambda self: Event())
    Event.made = []
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    delivery: Any = record._delivery
    states = {0: digest(model)}
    for loss in updates(model, 4):
        record(loss=loss)
        states[record.step] = digest(model)
    ring = delivery._handover.ring
    assert [flight.step for flight in delivery.flights] == [0, 1, 2, 3, 4]
    assert [head[0] for head in ring._heads].count(CLAIMED) == 5
    Event.made[1].done = True  # not the first: nothing may overtake it
    delivery.collect()
    assert len(delivery.flights) == 5
    Event.made[0].done = True
    delivery.collect()
    assert [flight.step for flight in delivery.flights] == [2, 3, 4]
    assert not any(event.waited for event in Event.made)
    record.close()
    run = open_run(tmp_path / "run")
    assert {entry.step: entry.content for entry in run.entries} == states
    assert [event.waited for event in Event.made] == [False, False, True, True, True]


def test_a_full_ring_waits_for_the_flights_and_goes_raw(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Delivery, "_event", lambda self: Event())
    model = make_model()
    record = Recorder(tmp_path / "run", model, every=1)
    states = {0: digest(model)}
    for loss in updates(model, 30):
        record(loss=loss)
        states[record.step] = digest(model)
    assert record.summary().raw > 0
    record.close()
    run = open_run(tmp_path / "run")
    assert {entry.step: entry.content for entry in run.entries} == states
