"""The Recorder: what a training loop calls, once per update."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from ndt_offline.errors import UsageError
from ndt_offline.graph.models import refuse_sharded, unwrap
from ndt_offline.record import opening
from ndt_offline.record.attempts import history, is_first_rank, open_attempt, open_run_folder
from ndt_offline.record.delivery import Delivery
from ndt_offline.record.policy import Policy
from ndt_offline.record.scalars import Scalars, gradient_norm
from ndt_offline.record.summary import Summary
from ndt_offline.run.grid import digits_of
from ndt_offline.run.probe import make_probe

_open: dict[Path, Recorder] = {}  # by path, of this process


class Recorder:
    """Records a training run: weights every few updates, a probe, the forward graph, a journal.

        record = Recorder("ckpts", model, probe=(x, y), loss="cross_entropy", every=5)
        ...
            optimizer.step()
            record(loss=loss, grad_norm=grad_norm)
        record.close()

    path: the run directory; a restart with the same path opens the next attempt.
    model: any nn.Module; wrappers (compile, DataParallel, DDP) are looked through.
    probe: a fixed batch `(x, y)`; x is a tensor, a tuple or a dictionary of tensors.
    loss: how outputs and y give the probe's loss: cross_entropy, nll, mse, l1, bce_with_logits,
        none.
    every: updates between checkpoints; dense: every update up to this step.
    start_step: updates done before; the state at that step is written at once.
    val_probe: a second batch, from validation data.
    output: name or index of the model's output that the loss takes.
    precision: None is lossless; "q10", "q12", "q14" keep that many binary digits of a tensor's
        rms, with the largest error and a bound of its spectral norm beside the data.
    last: `close` writes the state it finds, whatever the step.
    on_error: "warn" (training never sees an error from recording) or "raise".
    thread: code in a thread, where no process may be started: what waits then dies with training.

    In the loop the weights are copied into shared memory; a process of low priority does the rest.
    Where `RANK` or torch.distributed says that this is not rank 0, and in forked copies of the
    process, nothing is recorded. Mistakes in the arguments raise UsageError at construction;
    faults of disks and models do not. A Recorder that is still open on the path in this process,
    left by a training that ended with an error, is closed.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module,
        *,
        probe: Any = None,
        loss: str | Callable[..., Any] = "cross_entropy",
        every: int = 5,
        dense: int = 0,
        start_step: int = 0,
        val_probe: Any = None,
        output: str | int | None = None,
        precision: str | None = None,
        last: bool = False,
        on_error: str = "warn",
        thread: bool = False,
    ) -> None:
        every = opening.whole("every", every, least=1)
        start_step = opening.whole("start_step", start_step)
        dense = opening.whole("dense", dense)
        if not isinstance(model, nn.Module):
            raise UsageError(f"model is {type(model).__name__}, expected a torch.nn.Module")
        digits_of(precision)
        self.path, self.every, self.dense = opening.absolute(path), every, dense
        self.policy = Policy(on_error)
        self.step, self.seconds, self._last, self._recorded = start_step, 0.0, last, -1
        self._delivery: Delivery | None = None
        self._model = unwrap(model)
        self._process = os.getpid()
        if not is_first_rank():
            return
        refuse_sharded(self._model)
        loss = opening.loss_name(loss, self._advise)
        first = None if probe is None else make_probe(probe)
        second = None if val_probe is None else make_probe(val_probe)
        second = opening.second_probe(first, second, self._advise)
        graph = opening.export(self._model, first, output, self._advise)
        opening.check_labels(loss, graph, (first, second), self._advise)
        self._close_earlier()
        try:
            self._lock = open_run_folder(self.path)
            try:
                opening.keep(self.path, first, second, graph)
                for note in history(self.path, start_step):
                    print(f"ndt-offline: {self.path}: {note}", file=sys.stderr)
                about = opening.about(start_step, every, loss, precision, graph)
                attempt = open_attempt(self.path, about)
                self._delivery = Delivery(attempt, self._model, precision, self.policy, thread)
            except BaseException:
                self._lock.drop()
                raise
        except OSError as error:
            self.policy.failed(
                f"nothing is recorded: {error.strerror or error}: {self.path}",
                "record into a directory that can be written",
            )
            if self.policy.raises:
                raise
            return
        atexit.register(self._at_exit)
        _open[self.path.resolve()] = self
        self._record(Scalars({}), False)
        self._delivery.await_writer()

    def __call__(
        self, *, loss: Any = None, grad_norm: Any = None, step: int | None = None, **scalars: Any
    ) -> None:
        """Tell the recorder that one update was done.

        loss, grad_norm: those of the batch that produced the update (numbers or tensors);
        without grad_norm it is computed from the gradients on recording steps.
        step: updates done so far, where the loop counts itself; it must increase.
        Further keywords (`lr=...`) go into the journal.
        """
        delivery = self._delivery
        if delivery is None:
            return
        quiet = not (delivery.flights or delivery.closed)
        # Most calls end here: after an update every line of code has to come from memory again.
        if quiet and step is None and not self.due(self.step + 1):
            self.step += 1
            return
        if os.getpid() != self._process:  # a system call
            return
        if delivery.closed:
            self.policy.warn("closed", "it is closed: nothing is recorded", "make a new Recorder")
            return
        done = self.step + 1 if step is None else self._updates(step)
        if done is None:
            return
        self.step = done
        delivery.collect()
        if not self.due(done):
            return
        started = time.perf_counter()
        norm = self._measured_norm() if grad_norm is None else grad_norm
        named = {"loss": loss, "grad_norm": norm, **scalars}
        self._record(Scalars(named), grad_norm is not None)
        self.seconds += time.perf_counter() - started

    def due(self, step: int) -> bool:
        """Whether the schedule records this step."""
        return step % self.every == 0 or step <= self.dense

    def summary(self) -> Summary:
        """What was recorded, raw, dropped; bytes, ratio, seconds spent in the loop."""
        counts = self._delivery.counts() if self._delivery else {}
        return Summary.of(counts, self.policy.count, self.seconds)

    def close(self) -> None:
        """Finish the run, say what was recorded. Called at exit too.

        Waits until the writer has coded what was written raw, at most 120 s: after that it warns,
        and the writer finishes by itself. With `thread=True` raw checkpoints stay raw; `ndt-offline
        pack` codes them.
        """
        self._close(self._last)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(self._last and kind is None)

    def _at_exit(self) -> None:
        self._close(False)  # after an error the weights may be those of half an update

    def _close(self, last: bool) -> None:
        delivery = self._delivery
        if delivery is None or os.getpid() != self._process or delivery.closed:
            return
        atexit.unregister(self._at_exit)
        _open.pop(self.path.resolve(), None)
        if last and self._recorded != self.step:
            self._record(Scalars({}), False)
        try:
            self.policy.guard(lambda: delivery.close(self.seconds), "closing the recording")
        finally:  # interrupted, too: the writer ends by itself, and a next training may start
            self._lock.drop()
        print(f"ndt-offline: {self.path}: {self.summary()}", file=sys.stderr)

    def _close_earlier(self) -> None:
        """A training that raised leaves its Recorder open, and often nobody a name for it."""
        earlier = _open.get(self.path.resolve())
        if earlier is not None and earlier._process == self._process:
            self._advise(
                f"a Recorder of this process was still open on {self.path}: it is closed",
                "with Recorder(...) as record: closes it, also after an error",
            )
            earlier._close(False)

    def _record(self, scalars: Scalars, given_norm: bool) -> None:
        assert self._delivery is not None
        self._recorded = self.step
        self._delivery.take(self.step, scalars, given_norm)

    def _updates(self, step: Any) -> int | None:
        """Updates done so far, as the loop says; None where that cannot be."""
        try:
            done = opening.whole("step", step)
            if done > self.step:
                return done
            why = f"step {done} after step {self.step} was ignored: steps must increase"
        except UsageError as error:
            why = f"a call was ignored: {error.what}"
        self.policy.warn("order", why, "count updates over all epochs, or leave step= out")
        return None

    def _measured_norm(self) -> Any:
        try:
            return gradient_norm(self._delivery.parameters())  # type: ignore[union-attr]
        except Exception as error:  # sparse gradients, several devices
            self.policy.warn(
                "norm",
                f"the gradient norm cannot be computed, and is not recorded: {str(error)[:80]}",
                "pass grad_norm=",
            )
            return None

    def _advise(self, what: str, remedy: str) -> None:
        self.policy.warn(what, what, remedy)
