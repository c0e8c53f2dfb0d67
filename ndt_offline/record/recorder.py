"""The Recorder: what a training loop calls, once per update."""

from __future__ import annotations

import atexit
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

import ndt_offline
from ndt_offline.errors import UsageError
from ndt_offline.graph import Graph, export_graph, load_graph
from ndt_offline.graph.models import refuse_sharded, unwrap
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.record.writer import Writer, open_attempt
from ndt_offline.run import durable
from ndt_offline.run.probe import Probe, make_probe, probe_bytes

LOSSES = ("cross_entropy", "nll", "mse", "l1", "bce_with_logits", "none")


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
    every: updates between checkpoints.
    start_step: updates done before; the state at that step is written at once.
    val_probe: a second batch, from validation data.
    output: name or index of the model's output that the loss takes.
    on_error: "warn" (training never sees an error from recording) or "raise".

    Mistakes in the arguments raise UsageError at construction; faults later do not.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module,
        *,
        probe: Any = None,
        loss: str | Callable[..., Any] = "cross_entropy",
        every: int = 5,
        start_step: int = 0,
        val_probe: Any = None,
        output: str | int | None = None,
        on_error: str = "warn",
    ) -> None:
        if every < 1 or start_step < 0:
            raise UsageError(f"every={every}, start_step={start_step}: expected >= 1 and >= 0")
        if on_error not in ("warn", "raise"):
            raise UsageError(f"on_error={on_error!r}: expected 'warn' or 'raise'")
        self.path, self.every, self.on_error = Path(path), every, on_error
        self.failures: list[str] = []
        self._step = start_step
        self._closed = False
        self._model = unwrap(model)
        refuse_sharded(self._model)
        self._snapshot = Snapshot(self._model)
        loss = self._loss_name(loss)
        first = None if probe is None else make_probe(probe)
        second = None if val_probe is None else make_probe(val_probe)
        graph = self._export(first, output)
        about = {
            "start_step": start_step,
            "every": every,
            "loss": loss,
            "graph": graph.fingerprint if graph else None,
            "difference": graph.difference if graph else None,
            "versions": {
                "ndt_offline": ndt_offline.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        self._check_same(first, second, graph)
        self._writer = Writer(self.path, open_attempt(self.path, about))
        self._keep(first, second, graph)
        atexit.register(self.close)
        self._record({})

    def __call__(
        self, *, loss: Any = None, grad_norm: Any = None, step: int | None = None, **scalars: Any
    ) -> None:
        """Tell the recorder that one update was done.

        loss, grad_norm: those of the batch that produced the update (numbers or tensors);
        without grad_norm it is computed from the gradients on recording steps.
        step: updates done so far, where the loop counts itself; it must increase.
        Further keywords (`lr=...`) go into the journal.
        """
        if step is not None and step <= self._step:
            self._warn(
                f"step {step} after step {self._step} was ignored: steps must increase",
                "count updates over all epochs, or leave step= out",
            )
            return
        self._step = self._step + 1 if step is None else step
        if self._closed or self._step % self.every:
            return
        given = grad_norm is not None
        norm = grad_norm if given else self._gradient_norm()
        self._record(
            {
                "loss": _number(loss),
                "grad_norm": _number(norm),
                "grad_norm_from": "given" if given else "measured",
                "scalars": {name: _number(value) for name, value in scalars.items()},
            }
        )

    def close(self) -> None:
        """Finish the run; called at interpreter exit too."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            self._guard(self._writer.close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _record(self, scalars: dict[str, Any]) -> None:
        def write() -> None:
            layout, vectors = self._snapshot.take()
            self._writer.write(self._step, layout, vectors, scalars)

        self._guard(write)

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self.failures.append(f"step {self._step}: {error}")
            if self.on_error == "raise":
                raise
            self._warn(f"step {self._step} was not recorded: {error}", "free space, then go on")

    def _warn(self, what: str, remedy: str) -> None:
        # Python shows a warning once per text and place; the steps differ, so we count ourselves.
        if not getattr(self, "_warned", False):
            self._warned = True
            warnings.warn(f"ndt-offline: {what}; {remedy}", RuntimeWarning, stacklevel=4)

    def _loss_name(self, loss: str | Callable[..., Any]) -> str:
        if callable(loss):
            self._warn("a callable loss cannot be replayed; recorded as 'none'", f"use {LOSSES}")
            return "none"
        if loss not in LOSSES:
            raise UsageError(f"loss={loss!r}: expected one of {', '.join(LOSSES)}")
        return loss

    def _export(self, probe: Probe | None, output: str | int | None) -> Graph | None:
        if probe is None:
            self._warn("no probe: only weights can be analysed", "pass probe=(x, y)")
            return None
        try:
            return export_graph(self._model, probe.inputs, output=output)
        except Exception as error:
            self._warn(
                f"the model cannot be exported, so its forward graph is not recorded: {error}",
                "analyse with: ndt-analyze RUN --model package.module:factory",
            )
            return None

    def _check_same(self, probe: Probe | None, second: Probe | None, graph: Graph | None) -> None:
        """A run has one probe and one graph: another one is another run."""
        remedy = "record into another directory, or pass the same model and probe"
        kept = self.path / "probe.safetensors"
        if probe and kept.exists() and kept.read_bytes() != probe_bytes(probe, second):
            raise UsageError("the run was recorded with another probe", path=kept, remedy=remedy)
        kept = self.path / "graph.json"
        if graph and kept.exists() and load_graph(self.path).fingerprint != graph.fingerprint:
            raise UsageError("the run was recorded with another model", path=kept, remedy=remedy)

    def _keep(self, probe: Probe | None, second: Probe | None, graph: Graph | None) -> None:
        kept = self.path / "probe.safetensors"
        if probe and not kept.exists():
            durable.write(kept, [probe_bytes(probe, second)])
        if graph and not (self.path / "graph.json").exists():
            graph.save(self.path)

    def _gradient_norm(self) -> torch.Tensor | None:
        grads = [p.grad for p in self._model.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(grads) if grads else None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    return float(value.detach()) if isinstance(value, torch.Tensor) else float(value)
