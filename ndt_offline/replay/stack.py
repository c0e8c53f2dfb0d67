"""The weights of several checkpoints as one batch on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ndt_offline.run.checkpoint import Decoded


def stack(decoded: Sequence[Decoded | None], device: torch.device) -> dict[str, torch.Tensor]:
    """{name: [B, ...]}, aliases included; an empty place holds what the first full one does.

    All have one table of tensors. One copy per dtype goes to the device, from pinned memory.
    """
    full = [one for one in decoded if one is not None]
    layout, known = full[0].layout, [one or full[0] for one in decoded]
    typed = {}
    for dtype, size in layout.sizes.items():
        host = torch.empty((len(known), size), dtype=torch.uint8, pin_memory=device.type == "cuda")
        for row, one in zip(host, known, strict=True):
            row.copy_(torch.from_numpy(one.vectors[dtype]))
        typed[dtype] = host.to(device, non_blocking=True).view(getattr(torch, dtype))
    state = {}
    for tensor, span in layout.spans():
        kind: torch.dtype = getattr(torch, tensor.dtype)
        if tensor.dtype in typed:
            part = typed[tensor.dtype][:, span.start // kind.itemsize : span.stop // kind.itemsize]
            state[tensor.name] = part.reshape(len(known), *tensor.shape)
        else:
            state[tensor.name] = torch.empty((len(known), *tensor.shape), dtype=kind, device=device)
    for alias, name in layout.aliases.items():
        state[alias] = state[name]
    return state
