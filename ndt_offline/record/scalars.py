"""Loss, gradient norm and further numbers of an update, as the journal will hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Scalars:
    """Numbers of one update; those on an accelerator travel to the host without being waited for.

    Values are numbers or tensors of one element.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        given = {name: value for name, value in named.items() if value is not None}
        self._named = {
            n: v.detach() if isinstance(v, torch.Tensor) else v for n, v in given.items()
        }
        far = {
            name: value.reshape(())
            for name, value in self._named.items()
            if isinstance(value, torch.Tensor) and value.device.type != "cpu"
        }
        self._far = list(far)
        self._landing: torch.Tensor | None = None
        if far:
            stacked = torch.stack([value.double() for value in far.values()])
            self._landing = torch.empty(len(far), dtype=torch.float64, pin_memory=stacked.is_cuda)
            self._landing.copy_(stacked, non_blocking=True)

    def numbers(self) -> dict[str, float]:
        """The values; wrong before the copy's event is done."""
        landed = [] if self._landing is None else self._landing.tolist()
        return self.near() | dict(zip(self._far, landed, strict=True))

    def near(self) -> dict[str, float]:
        """Those that are on the host already."""
        return {name: float(v) for name, v in self._named.items() if name not in self._far}


def record_of(numbers: Mapping[str, float], given_norm: bool) -> dict[str, Any]:
    """The journal's fields; further scalars stand under `scalars`."""
    usual: dict[str, Any] = {n: numbers[n] for n in ("loss", "grad_norm") if n in numbers}
    if "grad_norm" in usual:
        usual["grad_norm_from"] = "given" if given_norm else "measured"
    extra = {name: value for name, value in numbers.items() if name not in ("loss", "grad_norm")}
    return {**usual, "scalars": extra}


def gradient_norm(model: nn.Module) -> torch.Tensor | None:
    """Two-norm of all gradients as one vector; None without gradients."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(grads) if grads else None


def not_finite(numbers: Mapping[str, float]) -> list[str]:
    return [name for name, value in numbers.items() if not math.isfinite(value)]
