"""The weights of a live model as vectors of bytes, tied tensors once."""

from __future__ import annotations

import torch
from torch import nn

from ndt_offline.errors import UsageError
from ndt_offline.run.layout import ITEMSIZE, Layout, Vectors


class Snapshot:
    """Copies a model's state dict into one flat vector per dtype.

    Parameters are looked up anew at each copy, because training may replace them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layout = layout_of(state_of(model))

    def take(self) -> tuple[Layout, Vectors]:
        """The present state, copied: later updates do not reach it."""
        state = state_of(self.model)
        self.layout = layout_of(state)
        flat = {
            dtype: torch.empty(size // ITEMSIZE[dtype], dtype=getattr(torch, dtype))
            for dtype, size in self.layout.sizes.items()
        }
        for tensor, span in self.layout.spans():
            item = ITEMSIZE[tensor.dtype]
            part = flat[tensor.dtype][span.start // item : span.stop // item]
            part.view(tensor.shape).copy_(state[tensor.name])
        return self.layout, {d: t.view(torch.uint8).numpy() for d, t in flat.items()}


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor of the state dict; other entries (extra state) are not weights."""
    return {k: v.detach() for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}


def layout_of(state: dict[str, torch.Tensor]) -> Layout:
    """The table of a state dict; tensors that share memory element for element are stored once."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    for name in sorted(state):
        tensor = state[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.is_quantized or dtype not in ITEMSIZE:
            raise UsageError(
                f"tensor {name!r} is {tensor.layout} of {tensor.dtype}; it cannot be recorded",
                remedy="register it with persistent=False, or record the float model",
            )
        same = (tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride(), tensor.device)
        if tensor.numel() and tensor.data_ptr() and same in seen:
            aliases[name] = seen[same]
            continue
        seen[same] = name
        shapes[name] = (dtype, tuple(tensor.shape))
    return Layout.of(shapes, aliases)
