"""Vectors of bytes as torch tensors: the only module of the run format that loads torch."""

from __future__ import annotations

import torch

from ndt_offline.run.layout import Layout, Vectors


def to_torch(layout: Layout, vectors: Vectors) -> dict[str, torch.Tensor]:
    """{name: CPU tensor}, aliases included; the tensors are views of the vectors."""
    typed = {
        dtype: torch.from_numpy(vector).view(getattr(torch, dtype))
        for dtype, vector in vectors.items()
        if len(vector)
    }
    state: dict[str, torch.Tensor] = {}
    for tensor, span in layout.spans():
        kind: torch.dtype = getattr(torch, tensor.dtype)
        if tensor.nbytes:
            flat = typed[tensor.dtype][span.start // kind.itemsize : span.stop // kind.itemsize]
            state[tensor.name] = flat.reshape(tensor.shape)
        else:
            state[tensor.name] = torch.empty(tensor.shape, dtype=kind)
    for alias, name in layout.aliases.items():
        state[alias] = state[name]
    return state
