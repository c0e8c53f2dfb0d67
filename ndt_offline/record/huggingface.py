"""A callback for Hugging Face's Trainer that records.

    from ndt_offline.record.huggingface import RecorderCallback
    trainer = Trainer(model, args, ..., callbacks=[RecorderCallback("ckpts", probe=(x, y))])

transformers is loaded when the name is asked for, not before.
"""

from __future__ import annotations

from typing import Any

import torch

from ndt_offline.graph.models import unwrap
from ndt_offline.record.recorder import Recorder
from ndt_offline.record.scalars import gradient_norm


class Losses:
    """The loss of an update, from what the model's forward returned for its batches.

    The Trainer shows callbacks no loss of a single update; a forward hook sees it. Told
    `num_items_in_batch`, the model divides by the items of the whole update: then the update's
    loss is the sum over its batches, else the mean.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._seen: list[torch.Tensor] = []
        self._shares = False
        self._hook = model.register_forward_hook(self._see, with_kwargs=True)

    def take(self) -> torch.Tensor | None:
        seen, self._seen = self._seen, []
        if not seen:
            return None
        losses = torch.stack(seen)
        return losses.sum() if self._shares else losses.mean()

    def close(self) -> None:
        self._hook.remove()

    def _see(self, module: torch.nn.Module, inputs: Any, named: Any, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if module.training and isinstance(loss, torch.Tensor):
            self._shares = named.get("num_items_in_batch") is not None
            self._seen.append(loss.detach().mean())


def _make() -> type:
    from transformers import TrainerCallback

    class RecorderCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Records a Trainer's training; `options` are those of `Recorder`.

        Steps are the Trainer's `global_step`. The loss is what the model's forward returned for
        the update's batches; the gradient norm is taken as the optimizer sees it,
        after the Trainer's clipping (`max_grad_norm=0` turns that off); the learning rate is that
        of the update, as the Trainer logs it.
        """

        def __init__(self, path: str, **options: Any) -> None:
            self.path, self.options = path, options
            self.recorder: Recorder | None = None
            self._losses: Losses | None = None
            self._norm: Any = None
            self._rate: Any = None

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            self.on_train_end(args, state, control)  # of a training that was broken off
            self._norm = self._rate = None
            options = {"start_step": state.global_step, "output": "logits", **self.options}
            self.recorder = Recorder(self.path, model, **options)
            self._losses = Losses(unwrap(model))

        def on_pre_optimizer_step(
            self,
            args: Any,
            state: Any,
            control: Any,
            model: Any = None,
            lr_scheduler: Any = None,
            **kwargs: Any,
        ) -> None:
            if self.recorder is not None and self.recorder.due(state.global_step + 1):
                self._norm = gradient_norm(unwrap(model).parameters())
                rate = None if lr_scheduler is None else lr_scheduler.get_last_lr()[0]
                self._rate = rate.clone() if isinstance(rate, torch.Tensor) else rate

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.recorder is None or self._losses is None:
                return
            named = {} if self._rate is None else {"lr": self._rate}
            loss = self._losses.take()
            self.recorder(loss=loss, grad_norm=self._norm, step=state.global_step, **named)
            self._norm = self._rate = None

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.recorder is not None:
                self.recorder.close()
            if self._losses is not None:
                self._losses.close()

    RecorderCallback.__qualname__ = "RecorderCallback"  # found again when it is unpickled
    return RecorderCallback


def __getattr__(name: str) -> Any:
    if name != "RecorderCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _make()
    return globals()[name]
