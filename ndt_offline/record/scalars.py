"""Loss, gradient norm and further numbers of an update, as the journal will hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

# Elements of a gradient on the CPU from which on it is summed in pieces, and of a piece.
LONG, PIECE = 2**18, 2**12


class Scalars:
    """Numbers of one update; those on an accelerator travel to the host without being waited for.

    Values are numbers or tensors of one element; any other becomes NaN and is named in `odd`,
    as {name: what it is}.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        self.odd: dict[str, str] = {}
        self._near: dict[str, float] = {}
        far: dict[str, torch.Tensor] = {}
        for name, value in named.items():
            if _is_far(value):
                far[name] = value.detach().reshape(())
            elif value is not None:
                self._near[name] = self._number(name, value)
        self._far = list(far)
        self._landing: torch.Tensor | None = None
        if far:
            try:
                self._send(list(far.values()))
            except Exception:  # on several devices, complex: one after the other
                self._far, self._landing = [], None
                self._near |= {name: self._number(name, value) for name, value in far.items()}

    def numbers(self) -> dict[str, float]:
        """The values; wrong before the copy's event is done."""
        landed = [] if self._landing is None else self._landing.tolist()
        return self.near() | dict(zip(self._far, landed, strict=True))

    def near(self) -> dict[str, float]:
        """Those that are on the host already."""
        return dict(self._near)

    def _send(self, values: list[torch.Tensor]) -> None:
        stacked = torch.stack([value.double() for value in values])
        self._landing = torch.empty(len(values), dtype=torch.float64, pin_memory=stacked.is_cuda)
        self._landing.copy_(stacked, non_blocking=True)

    def _number(self, name: str, value: Any) -> float:
        try:
            return float(value.detach() if isinstance(value, torch.Tensor) else value)
        except Exception:  # whatever a stranger's __float__ raises
            tensor = isinstance(value, torch.Tensor)
            shape = f" of shape {tuple(value.shape)}" if tensor else ""
            self.odd[name] = f"{type(value).__name__}{shape}"
            return math.nan


def _is_far(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type != "cpu" and value.numel() == 1


def record_of(numbers: Mapping[str, float], given_norm: bool) -> dict[str, Any]:
    """The journal's fields; further scalars stand under `scalars`."""
    usual: dict[str, Any] = {n: numbers[n] for n in ("loss", "grad_norm") if n in numbers}
    if "grad_norm" in usual:
        usual["grad_norm_from"] = "given" if given_norm else "measured"
    extra = {name: value for name, value in numbers.items() if name not in ("loss", "grad_norm")}
    return {**usual, "scalars": extra}


def gradient_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Two-norm of all gradients as one vector; None without gradients. Nothing is waited for.

    Of parameters that are trained: one that was frozen keeps the gradient it had.
    """
    grads = [grad for p in parameters if (grad := p.grad) is not None and p.requires_grad]
    if not grads:
        return None
    kinds = {(grad.dtype, grad.layout, grad.device) for grad in grads}
    if len(kinds) > 1 or grads[0].layout != torch.strided:
        return nn.utils.get_total_norm(grads)
    # As `get_total_norm` does, without its sorting by device and dtype, which costs as much again;
    # squares of half precision are summed in single.
    wider = None if grads[0].dtype.itemsize > 2 else torch.float32
    norms, short = [], []
    for grad in grads:
        if grad.numel() > LONG and grad.is_cpu and grad.is_contiguous():
            norms += _norms_of_pieces(grad.view(-1), wider)
        else:
            short.append(grad)
    if short:
        norms.append(torch.stack(torch._foreach_norm(short, 2, wider)))
    every = torch.cat(norms) if len(norms) > 1 else norms[0]
    return torch.linalg.vector_norm(every, dtype=torch.float64 if every.is_cpu else None)


def _norms_of_pieces(flat: torch.Tensor, wider: torch.dtype | None) -> list[torch.Tensor]:
    """Norms of a vector's pieces. On the CPU torch sums squares in single, one after the other:
    a norm over millions at once is off by 1e-5.
    """
    whole = len(flat) // PIECE * PIECE
    rows, rest = flat[:whole].view(-1, PIECE), flat[whole:].view(1, -1)
    return [torch.linalg.vector_norm(part, dim=1, dtype=wider) for part in (rows, rest)]


def not_finite(numbers: Mapping[str, float]) -> list[str]:
    return [name for name, value in numbers.items() if not math.isfinite(value)]
