"""A graph whose first layers see the probe in its own row space: the same loss, fewer weights.

A probe x [n, p] of rank r is R Q' with R [n, r] and orthonormal Q [p, r]. A linear layer W [out, p]
that reads x gives x W' = R (W Q)', so loss, gradient and Hessian depend on W Q [out, r] only: the
part of W beyond the probe's row space has no gradient and no curvature. Lengths and inner products
of gradients and Hessian vectors are the same in both; with 512 samples of 784 pixels products with
the Hessian cost two thirds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ndt_offline.graph.document import Document, Slot, Value
from ndt_offline.graph.inputs import flatten
from ndt_offline.graph.operations import packet
from ndt_offline.graph.program import Graph

# Singular values below this share of the largest are float32's rounding of the probe.
_RANK = 1e-7
# From this share of the features on, there is nothing to be gained.
_WORTH = 0.9


@dataclass(frozen=True)
class Reduced:
    """The graph, the probe in coordinates, and by parameter the frame Q [p, r], if it has one."""

    graph: Graph
    inputs: Mapping[str, Tensor]
    frames: Mapping[str, Tensor]

    def weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors as the reduced graph takes them."""
        found = dict(state)
        for slot in self.graph.document.parameters:
            if slot.key in self.frames:
                name = next(n for n in (slot.key, *slot.aliases) if n in state)
                frame = self.frames[slot.key].to(state[name].device)
                found[name] = state[name].detach().to(frame.dtype) @ frame
        return found

    def whole(self, name: str, value: Tensor) -> Tensor:
        """A parameter's gradient or vector, [out, r], back among all weights, [out, p]."""
        return value @ self.frames[name].T.to(value) if name in self.frames else value


def reduce(graph: Graph, inputs: Any) -> Reduced:
    """The reduced graph for a probe; the graph as it is where no linear layer reads the probe."""
    given = flatten(inputs, graph.inputs)
    document = graph.document
    frames: dict[str, Tensor] = {}
    for slot in graph.document.inputs:
        weights = _readers(document, slot)
        x = given[slot.key]
        if not weights or x.ndim != 2 or x.dtype not in (torch.float32, torch.float64):
            continue
        frame = _frame(x)
        if frame.shape[1] > _WORTH * x.shape[1]:
            continue
        given = {**given, slot.key: (x.double() @ frame).to(x.dtype)}
        frames |= {weight.key: frame.to(x.dtype) for weight in weights}
        document = _narrowed(document, {slot.name, *(w.name for w in weights)}, frame.shape[1])
    if not frames:
        return Reduced(graph, given, {})
    return Reduced(graph.with_document(document, True), given, frames)


def _frame(x: Tensor) -> Tensor:
    """Orthonormal Q [p, r] that spans the rows of x, float64."""
    _, values, rows = torch.linalg.svd(x.detach().double(), full_matrices=False)
    if not bool(torch.isfinite(values).all()):
        return torch.eye(x.shape[1], dtype=torch.float64)
    rank = max(int((values > _RANK * values[0]).sum()), 1)
    return rows[:rank].T.contiguous()


def _readers(document: Document, slot: Slot) -> list[Slot]:
    """Weights of the linear layers that read an input; none where anything else touches either."""
    parameters = {p.name: p for p in document.parameters if not p.buffer}
    reading = [node for node in document.nodes if slot.name in node.refs()]
    found: dict[str, Slot] = {}
    for node in reading:
        if packet(node.op) != "linear" or node.kwargs or node.refs().count(slot.name) != 1:
            return []
        x, weight = (getattr(argument, "name", "") for argument in node.args[:2])
        if (
            x != slot.name
            or weight not in parameters
            or parameters[weight].value.dtype != (slot.value.dtype)
        ):
            return []
        found[weight] = parameters[weight]
    others = {r for n in document.nodes if n not in reading for r in n.refs()}
    biases = {getattr(a, "name", "") for node in reading for a in node.args[2:]}
    if others & found.keys() or biases & found.keys() or document.output in {slot.name, *found}:
        return []
    return list(found.values())


def _narrowed(document: Document, names: set[str], rank: int) -> Document:
    """The document with these [.., p] inputs and parameters as [.., rank]."""

    def narrow(slot: Slot) -> Slot:
        if slot.name not in names:
            return slot
        return replace(slot, value=Value(slot.value.dtype, (slot.value.shape[0], rank)))

    return replace(
        document,
        inputs=tuple(narrow(slot) for slot in document.inputs),
        parameters=tuple(narrow(slot) for slot in document.parameters),
    )
