"""The probe's loss and accuracy from a model's output, by the name recorded with the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ndt_offline.errors import UsageError
from ndt_offline.run.probe import IGNORED

_UNFIT = (RuntimeError, IndexError, ValueError)  # what a loss says of tensors that do not fit it


def loss_and_accuracy(name: str, output: Tensor, targets: Tensor | None) -> tuple[float, float]:
    """Mean loss over the probe, and the share of right answers where the loss defines one.

    Computed in float64 from the output as it came. NaN where there is nothing to compare with,
    both of them where the loss is not a number.
    Raises UsageError where the targets do not fit the output.
    """
    if targets is None or name == "none":
        return math.nan, math.nan
    if name not in _LOSSES:
        raise UsageError(f"loss {name!r} is not known", remedy=f"one of: {', '.join(_LOSSES)}")
    wide = output.double() if not output.is_complex() else output
    try:
        loss, accuracy = _LOSSES[name](wide, targets)
    except _UNFIT as error:
        raise _misfit(name, output, targets, error) from None
    # The largest of scores that are not numbers is the first of them: no answer at all.
    return float(loss), math.nan if torch.isnan(loss) else float(accuracy)


def are_classes(targets: Tensor | None, output: Sequence[int]) -> bool:
    """Whether targets are classes of the last axis of an output [..., classes].

    Others never say what their loss is.
    """
    if targets is None or targets.is_floating_point() or not targets.numel():
        return False
    if tuple(output[:-1]) != tuple(targets.shape):
        return False
    return bool(int(targets.min()) >= IGNORED and int(targets.max()) < output[-1])


def _misfit(name: str, output: Tensor, targets: Tensor, error: Exception) -> UsageError:
    shapes = f"output {tuple(output.shape)}, targets {tuple(targets.shape)}"
    return UsageError(f"loss {name} does not fit the probe ({shapes}): {error}")


def _classes(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [n, classes] and targets [n]; [batch, tokens, classes] and [batch, classes, ...]."""
    if output.ndim == targets.ndim + 1 and output.shape[:-1] == targets.shape:
        return output.reshape(-1, output.shape[-1]), targets.reshape(-1)
    return output.movedim(1, -1).reshape(-1, output.shape[1]), targets.reshape(-1)


def _like(targets: Tensor, output: Tensor) -> Tensor:
    if output.numel() != targets.numel():
        raise ValueError("different numbers of elements")
    return targets.double().reshape(output.shape)


def _classification(
    kind: Callable[..., Tensor],
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def both(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if targets.is_floating_point():
            target_class = targets.argmax(1)
            hits = output.argmax(1) == target_class
            return F.cross_entropy(output, targets.double()), hits.double().mean()
        scores, labels = _classes(output, targets.long())
        counted = labels != IGNORED
        hits = scores.argmax(1)[counted] == labels[counted]
        return kind(scores, labels, ignore_index=IGNORED), hits.double().mean()

    return both


def _binary(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    labels = targets.double().reshape(output.shape)
    hits = (output > 0) == (labels > 0.5)
    return F.binary_cross_entropy_with_logits(output, labels), hits.double().mean()


def _regression(kind: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def both(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return kind(output, _like(targets, output)), torch.tensor(math.nan)

    return both


_LOSSES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "cross_entropy": _classification(F.cross_entropy),
    "nll": _classification(F.nll_loss),
    "mse": _regression(F.mse_loss),
    "l1": _regression(F.l1_loss),
    "bce_with_logits": _binary,
}


def sample_losses(name: str, output: Tensor, targets: Tensor | None, samples: int) -> Tensor:
    """The loss of each sample of the probe [samples], float64; their mean is the probe's loss.

    A sample is one entry of the batch with all its tokens or positions. Where targets are left out
    by -100, samples weigh by the number of theirs that count, as they do in the mean loss: a
    sample's value is then not its own mean. Differentiable. Raises UsageError where there is
    nothing to compare with, or the targets do not fit the output.
    """
    if targets is None or name not in _EACH:
        raise UsageError(
            f"gradients need a labelled probe and a loss; the loss is {name!r}"
            + ("" if targets is not None else ", and there are no targets"),
            remedy=f"record with one of: {', '.join(_EACH)}",
        )
    try:
        losses, count = _EACH[name](output.double(), targets)
        return losses.reshape(samples, -1).sum(1) * (samples / max(count, 1))
    except _UNFIT as error:
        raise _misfit(name, output, targets, error) from None


def _each_class(
    kind: Callable[..., Tensor],
) -> Callable[[Tensor, Tensor], tuple[Tensor, int]]:
    def each(output: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        if targets.is_floating_point():
            losses = F.cross_entropy(output, targets.double(), reduction="none")
            return losses, losses.numel()
        scores, labels = _classes(output, targets.long())
        losses = kind(scores, labels, ignore_index=IGNORED, reduction="none")
        return losses, int((labels != IGNORED).sum())

    return each


def _each_value(
    kind: Callable[..., Tensor],
) -> Callable[[Tensor, Tensor], tuple[Tensor, int]]:
    def each(output: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        losses = kind(output, _like(targets, output), reduction="none")
        return losses, losses.numel()

    return each


# The same losses value by value, and how many values the mean is taken over.
_EACH: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, int]]] = {
    "cross_entropy": _each_class(F.cross_entropy),
    "nll": _each_class(F.nll_loss),
    "mse": _each_value(F.mse_loss),
    "l1": _each_value(F.l1_loss),
    "bce_with_logits": _each_value(F.binary_cross_entropy_with_logits),
}
