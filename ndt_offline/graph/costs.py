"""What a forward pass costs, by the recorded shapes: for estimates, not for bills."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ndt_offline.graph.document import Document, Node, Value
from ndt_offline.graph.guards import peak_bytes
from ndt_offline.graph.operations import packet
from ndt_offline.graph.program import Graph

_PRODUCTS = frozenset({"linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum", "bilinear"})
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


def forward_flops(graph: Graph) -> float:
    """Multiplications and additions of one forward pass; element-wise work counts 1 an element.

    A product counts 2 per output element and summed term, attention 4 T S D per head.
    """
    values = _values(graph.document)
    return float(sum(_flops(node, values) for node in graph.document.nodes))


def forward_bytes(graph: Graph) -> int:
    """Most bytes of intermediate values alive at one time, weights and inputs not counted."""
    return peak_bytes(graph.document)


def _values(document: Document) -> dict[str, Value | None]:
    known: dict[str, Value | None] = {slot.name: slot.value for slot in document.slots()}
    return known | {node.name: node.values[0] for node in document.nodes}


def _flops(node: Node, values: Mapping[str, Value | None]) -> float:
    out, name = values[node.name], packet(node.op)
    arguments = [value for ref in node.refs() if (value := values[ref]) is not None]
    if out is None or not arguments:
        return 0.0
    if name in _PRODUCTS:
        return 2.0 * out.elements * _summed(name, arguments)
    if "conv" in name and len(arguments) > 1:
        weight = arguments[1].shape
        over = arguments[0].elements if "transpose" in name else out.elements
        return 2.0 * over * math.prod(weight[1:])
    if name == "scaled_dot_product_attention" and len(arguments) > 1:
        return 4.0 * out.elements * (arguments[1].shape[-2:] or (1,))[0]
    if name in _RECURRENT:
        steps = math.prod(arguments[0].shape[:2])
        return 2.0 * steps * sum(a.elements for a in arguments[1:] if len(a.shape) == 2)
    return float(out.elements)


def _summed(name: str, arguments: list[Value]) -> int:
    """Terms in each sum: the length of the axis that both factors share."""
    first = arguments[1] if name in ("addmm", "baddbmm") and len(arguments) > 2 else arguments[0]
    return first.shape[-1] if first.shape else 1
