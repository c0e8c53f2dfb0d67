"""Vectors of bytes as torch tensors: the only module of the run format that loads torch."""

from __future__ import annotations

import torch

from ndt_offline.errors import RefusedError
from ndt_offline.run.layout import LINE, Layout, Tensor, Vectors


def to_torch(layout: Layout, vectors: Vectors) -> dict[str, torch.Tensor]:
    """{name: CPU tensor}, aliases included; the tensors are views of the vectors.

    Vectors that do not lie on whole cache lines are copied to some that do: libraries of linear
    algebra add in another order where memory is aligned otherwise, and the last digits would
    depend on where a process happened to put them.
    """
    typed = {
        dtype: _aligned(torch.from_numpy(vector)).view(getattr(torch, dtype))
        for dtype, vector in vectors.items()
        if len(vector)
    }
    state: dict[str, torch.Tensor] = {}
    for tensor, span in layout.spans():
        kind: torch.dtype = getattr(torch, tensor.dtype)
        if tensor.nbytes:
            start, count = span.start // kind.itemsize, tensor.nbytes // kind.itemsize
            state[tensor.name] = typed[tensor.dtype].narrow(0, start, count).view(tensor.shape)
        else:
            state[tensor.name] = _empty(tensor, kind)
    for alias, name in layout.aliases.items():
        state[alias] = state[name]
    return state


def _aligned(flat: torch.Tensor) -> torch.Tensor:
    return flat if flat.data_ptr() % LINE == 0 else flat.clone()


def _empty(tensor: Tensor, kind: torch.dtype) -> torch.Tensor:
    try:
        return torch.empty(tensor.shape, dtype=kind)
    except RuntimeError:  # sides whose product is beyond torch, were one of them not 0
        what = f"tensor {tensor.name!r} has shape {tensor.shape}, which is not plausible"
        raise RefusedError(what) from None
