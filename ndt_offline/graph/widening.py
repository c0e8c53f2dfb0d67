"""Linear layers with more outputs than inputs: where in the graph their two factors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ndt_offline.graph.document import Document, Node, Ref, Slot, Value
from ndt_offline.graph.matrices import Layer
from ndt_offline.graph.operations import packet

_RESHAPED = frozenset({"view", "reshape", "_unsafe_view"})
_BY_ROWS = frozenset({"rows", "tokens"})


@dataclass(frozen=True)
class Widening:
    """A layer that is x W' + b, with fewer inputs k than outputs and rows.

    source: the graph's value x [..., k], a node or an input. weight: names in the state dict of W,
    one of which is there; `flipped` where it is stored as [k, outputs]. bias: names of b, or none.
    """

    source: str
    weight: tuple[str, ...]
    flipped: bool
    bias: tuple[str, ...]


def find_widening(document: Document, layer: Layer, least: int) -> Widening | None:
    """The factors of a float32 layer whose rank they bound; None for any other.

    The smaller side must be `least` or more, and the bound below three quarters of it: else the
    matrix itself is as cheap.
    """
    nodes = {node.name: node for node in document.nodes}
    node = nodes.get(layer.node)
    while node is not None and packet(node.op) in _RESHAPED:
        node = nodes.get(_name(node, 0))
    if node is None or layer.rule not in _BY_ROWS or layer.smaller < least:
        return None
    known: dict[str, Value | None] = {slot.name: slot.value for slot in document.slots()}
    known |= {name: node.value for name, node in nodes.items()}
    found = _operands(node, {slot.name: slot for slot in document.parameters})
    source = known.get(found.source) if found else None
    if found is None or source is None or source.dtype != "float32":
        return None
    rank = source.shape[-1] + bool(found.bias)
    out = known[node.name]
    same = out is not None and out.shape == (*source.shape[:-1], layer.columns)
    same = same and source.elements == layer.rows * source.shape[-1]
    return found if same and 4 * rank <= 3 * layer.smaller else None


def _operands(node: Node, parameters: Mapping[str, Slot]) -> Widening | None:
    """x, W and b of a node that multiplies by a parameter."""
    kind = packet(node.op)
    places = {"linear": (0, 1, 2), "addmm": (1, 2, 0), "mm": (0, 1, 9)}.get(kind)
    if places is None or node.kwargs:
        return None
    source, weight, bias = (_name(node, place) for place in places)
    given = len(node.args) > places[2] and node.args[places[2]] is not None
    if weight not in parameters or (given and bias not in parameters):
        return None
    if given and len(parameters[bias].value.shape) != 1:
        return None
    return Widening(
        source,
        _keys(parameters[weight]),
        kind != "linear",
        _keys(parameters[bias]) if given else (),
    )


def _name(node: Node, place: int) -> str:
    argument = node.args[place] if len(node.args) > place else None
    return argument.name if isinstance(argument, Ref) else ""


def _keys(slot: Slot) -> tuple[str, ...]:
    return (slot.key, *slot.aliases)
