"""From the model to the writer: one checkpoint at a time, waited for by nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ndt_offline.record.attempts import keep_layout
from ndt_offline.record.dropped import Dropped
from ndt_offline.record.handover import Handover
from ndt_offline.record.pinning import Pin
from ndt_offline.record.policy import Policy
from ndt_offline.record.scalars import Scalars, not_finite, record_of
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.run.layout import Layout, Vectors

KEPT = 32 * 2**20  # bytes of a copy whose memory is used again


@dataclass
class Flight:
    """A checkpoint whose copy from an accelerator may still be under way."""

    slot: int
    number: int
    step: int
    layout: Layout
    scalars: Scalars
    given_norm: bool
    event: Any  # None: copied already


class Delivery:
    """Takes checkpoints of a model and sees that each is published, raw, or counted as dropped."""

    def __init__(
        self,
        attempt: Path,
        model: nn.Module,
        precision: str | None,
        policy: Policy,
        thread: bool = False,
    ) -> None:
        self._attempt, self._policy = attempt, policy
        self._snapshot = Snapshot(model)
        self._layout = self._snapshot.layout
        keep_layout(attempt.parent.parent, self._layout)
        self._handover = Handover(attempt, self._layout, precision, thread)
        self.flights: deque[Flight] = deque()
        self._number = self._failures_seen = 0
        self._dropped = Dropped()
        self._pin = Pin()
        self._own: Vectors = {}
        self.closed = self._looked = False

    def take(self, step: int, scalars: Scalars, given_norm: bool) -> None:
        """Copy the model's present state and send it on its way."""
        number, self._number = self._number, self._number + 1
        # Only this one: where it is left out, training may replace tensors before the next.
        looked, self._looked = self._looked, False
        if self._policy.pausing() or not self._policy.guard(
            lambda: self._take(number, step, scalars, given_norm, looked),
            f"step {step} was not recorded",
        ):
            self._drop(step, scalars, given_norm)

    def parameters(self) -> Iterable[torch.Tensor]:
        """The model's present parameters; the `take` that follows need not look again."""
        self._looked = False
        self._snapshot.refresh()
        self._looked = True
        return self._snapshot.parameters()

    def await_writer(self) -> None:
        self._handover.await_writer()

    def collect(self, wait: bool = False) -> None:
        """Publish the flights that have landed."""
        while self.flights and (wait or self._landed(self.flights[0])):
            flight = self.flights.popleft()
            if not self._policy.guard(
                lambda flight=flight: self._publish(flight),  # type: ignore[misc]
                f"step {flight.step} was not recorded",
            ):
                self._drop(flight.step, flight.scalars, flight.given_norm)

    def counts(self) -> dict[str, int]:
        """Checkpoints and bytes by what became of them, as far as the writer has come."""
        handover = self._handover
        names = ("recorded", "raw_done", "dropped", "stored_bytes", "bytes")
        counts = {n: handover.ring[n] for n in names} if handover.ring else dict(handover.totals)
        counts["raw"], counts["coding"] = handover.raw, handover.defers
        dropped = self._dropped  # the writer may have dropped some that the trainer had published
        counts["dropped"] = max(counts.get("dropped", 0) + dropped.untold, dropped.count)
        return counts

    def close(self, seconds: float) -> None:
        """Publish what is under way and wait for the writer."""
        if self.closed:
            return
        self.collect(wait=True)
        self.closed = True
        said = {"seconds": round(seconds, 3), **self._dropped.rest()}
        self._unpin()
        done = self._handover.stop(final=True, said=said)
        self._dropped.clear()
        self._heed()
        if not done:
            self._policy.warn(
                "slow",
                "the writer is still at work; it finishes by itself",
                f"look at {self._attempt / 'writer.log'} if it does not",
            )

    def _take(
        self, number: int, step: int, scalars: Scalars, given_norm: bool, looked: bool
    ) -> None:
        self._heed()
        layout = self._snapshot.layout if looked else self._snapshot.refresh()
        if layout.key != self._layout.key:
            keep_layout(self._attempt.parent.parent, layout)
            self.collect(wait=True)
            self._unpin()  # the ring may be replaced by a larger one
            self._layout = layout
        if self._handover.ring is not None:
            self._handover.ring.reclaim({flight.slot for flight in self.flights})
        claimed = self._handover.claim(layout)
        if claimed is None:
            return self._raw(step, scalars, given_norm)
        slot, views = claimed
        try:
            self._prepare()
            self._snapshot.copy_to(views)
            event = self._event()
        except BaseException:
            self._handover.give_up(slot)
            raise
        self.flights.append(Flight(slot, number, step, layout, scalars, given_norm, event))
        self.collect()
        return None

    def _publish(self, flight: Flight) -> None:
        try:
            if flight.event is not None:
                flight.event.synchronize()
            record = self._record(flight.scalars, flight.given_norm)
            for told in (self._dropped.some(), []):  # a long record has no room for others
                words = {"layout": flight.layout.key, "record": record, "dropped": told}
                if self._handover.publish(flight.slot, flight.number, flight.step, words):
                    self._dropped.told(len(told))
                    return
        except BaseException:
            self._handover.give_up(flight.slot)
            raise
        # More words than a slot has room for; this frees the slot itself.
        self._handover.write_slot(flight.slot, flight.step, flight.layout, record)

    def _raw(self, step: int, scalars: Scalars, given_norm: bool) -> None:
        self.collect(wait=True)
        layout, vectors = self._snapshot.take(self._own)
        if layout.nbytes <= KEPT:
            self._own = vectors  # fresh pages cost as much as the copy
        self._handover.write_raw(step, layout, vectors, self._record(scalars, given_norm))

    def _record(self, scalars: Scalars, given_norm: bool) -> dict[str, Any]:
        numbers = scalars.numbers()
        if scalars.odd:
            told = ", ".join(f"{name} is {what}" for name, what in scalars.odd.items())
            self._policy.warn(
                "scalar", f"{told}, not a number; recorded as NaN", "pass a number: loss.mean()"
            )
        if odd := [name for name in not_finite(numbers) if name not in scalars.odd]:
            self._policy.warn(
                "finite",
                f"{', '.join(odd)} is not finite; recorded as it is",
                "look at the learning rate; the analysis shows where it began",
            )
        return record_of(numbers, given_norm)

    def _drop(self, step: int, scalars: Scalars, given_norm: bool) -> None:
        self._dropped.add(step, record_of(scalars.near(), given_norm))

    def _prepare(self) -> None:
        """Before a copy from a GPU: the ring locked, the vector it is gathered in free again."""
        if (device := self._gpu()) is None:
            return
        self._pin.hold(self._handover.ring, torch.cuda.cudart())
        if self.flights and self.flights[-1].event is not None:
            # The training may use another stream now than for the last copy.
            torch.cuda.current_stream(device).wait_event(self.flights[-1].event)

    def _event(self) -> Any:
        if (device := self._gpu()) is None:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        return event

    def _unpin(self) -> None:
        if self._pin.held:
            self._pin.drop(torch.cuda.cudart())

    def _gpu(self) -> torch.device | None:
        device = self._snapshot.device
        return device if device is not None and device.type == "cuda" else None

    @staticmethod
    def _landed(flight: Flight) -> bool:
        try:
            return flight.event is None or bool(flight.event.query())
        except RuntimeError:  # the device has a fault; publishing meets it, and is guarded
            return True

    def _heed(self) -> None:
        """Pass on what the writer complained of."""
        seen, text = self._handover.failure(self._failures_seen)
        if seen > self._failures_seen:
            self._failures_seen = seen
            self._policy.count += 1
            self._policy.warn("writer", f"the writer has trouble: {text}", "free space")
