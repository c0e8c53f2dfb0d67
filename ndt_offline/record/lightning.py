"""A Lightning callback that records.

    from ndt_offline.record.lightning import RecorderCallback
    trainer = Trainer(callbacks=[RecorderCallback("ckpts", probe=(x, y), module="net")])

Lightning is loaded when the name is asked for, not before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ndt_offline.errors import UsageError
from ndt_offline.record.recorder import Recorder
from ndt_offline.record.scalars import gradient_norm


def find_module(model: nn.Module, path: str) -> nn.Module:
    """The submodule that is recorded: `path` inside the model, itself for the empty path."""
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"module={path!r}: {error}") from None


def _rate(trainer: Any) -> Any:
    """The learning rate of the first group of the first optimizer, as it is now."""
    rate = next((group["lr"] for o in trainer.optimizers for group in o.param_groups), None)
    return rate.clone() if isinstance(rate, torch.Tensor) else rate


def _make() -> type:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback  # type: ignore[no-redef,assignment,unused-ignore]

    class RecorderCallback(Callback):  # type: ignore[misc,unused-ignore]
        """Records a Lightning training; `options` are those of `Recorder`.

        module: path of the submodule to record, for instance "net"; the LightningModule itself
        by default. Steps are Lightning's `global_step`; the loss is the mean of what the update's
        `training_step`s returned; the gradient norm is taken before clipping, the learning
        rate before the schedule's step: it is that of the update.
        """

        def __init__(self, path: str, *, module: str = "", **options: Any) -> None:
            self.path, self.module, self.options = path, module, options
            self.recorder: Recorder | None = None
            self._norm: Any = None
            self._rate: Any = None
            self._losses: list[torch.Tensor] = []

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.on_train_end(trainer, pl_module)  # of a training that was broken off
            self._norm, self._rate, self._losses = None, None, []
            model = find_module(pl_module, self.module)
            options = {"start_step": trainer.global_step, **self.options}
            self.recorder = Recorder(self.path, model, **options)

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self._rate = _rate(trainer)
            if self.recorder is not None and self.recorder.due(trainer.global_step + 1):
                self._norm = gradient_norm(find_module(pl_module, self.module).parameters())

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if self.recorder is None:
                return
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if isinstance(loss, torch.Tensor):  # Lightning has divided it by their number
                self._losses.append(loss.detach().mean() * trainer.accumulate_grad_batches)
            if trainer.global_step <= self.recorder.step:
                return  # gradients are still being accumulated
            mean = torch.stack(self._losses).mean() if self._losses else None
            rate = _rate(trainer) if self._rate is None else self._rate
            named = {} if rate is None else {"lr": rate}
            self.recorder(loss=mean, grad_norm=self._norm, step=trainer.global_step, **named)
            self._norm, self._rate, self._losses = None, None, []

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self.recorder is not None:
                self.recorder.close()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self.on_train_end(trainer, pl_module)

    RecorderCallback.__qualname__ = "RecorderCallback"  # found again when it is unpickled
    return RecorderCallback


def __getattr__(name: str) -> Any:
    if name != "RecorderCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _make()
    return globals()[name]
