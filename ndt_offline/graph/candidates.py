"""Which values of a graph are layers by default: where a matrix parameter acts, and attention."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ndt_offline.graph.document import Document, Node, Ref, Value, layer_name
from ndt_offline.graph.operations import VIEWS, packet

_LINEAR = frozenset(
    {"addbmm", "addmm", "baddbmm", "bilinear", "bmm", "einsum", "linear", "matmul", "mm"}
)
_RECURRENT = {
    "lstm": "lstm",
    "gru": "gru",
    "rnn_tanh": "rnn",
    "rnn_relu": "rnn",
    "lstm_cell": "lstm",
    "gru_cell": "gru",
    "rnn_tanh_cell": "rnn",
    "rnn_relu_cell": "rnn",
}
_ATTENTION = "scaled_dot_product_attention"
_SOFTMAX = frozenset({"softmax", "_softmax", "_safe_softmax"})
# What a module may still do to a product and return "it": move it, copy it, add or scale by state.
_CARRY = VIEWS | {"clone", "_to_copy", "to", "add", "mul", "contiguous"}
_SUFFIX = re.compile(r"[._]?weight(_[a-z]+)?(_l\d+)?(_reverse)?\Z")


@dataclass(frozen=True)
class Candidate:
    """A value worth measuring and the name it goes by."""

    name: str
    node: str
    kind: str


class Flow:
    """What flows where in a document: values by name, and which depend on the state alone."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = {node.name: node for node in document.nodes}
        self.slots = {slot.name: slot for slot in document.parameters}
        self.values: dict[str, Value | None] = {s.name: s.value for s in document.slots()}
        self.values |= {node.name: node.value for node in document.nodes}
        self.outputs = {(call.module, call.call): call.node for call in document.calls}
        self.called = {call.module for call in document.calls}
        self.constant = {slot.name for slot in document.parameters + document.constants}
        self.weights = {slot.name for slot in document.parameters}
        self.users: dict[str, list[str]] = {}
        for node in document.nodes:
            self._trace(node)
            for name in node.refs():
                self.users.setdefault(name, []).append(node.name)

    def _trace(self, node: Node) -> None:
        refs = node.refs()
        if all(name in self.constant for name in refs):
            self.constant.add(node.name)
            if any(name in self.weights for name in refs):
                self.weights.add(node.name)

    def moving(self, node: Node) -> list[str]:
        """The values a node reads that depend on the inputs."""
        return [name for name in node.refs() if name not in self.constant]

    def kind(self, node: Node) -> str | None:
        """linear, conv, attention, lstm, gru or rnn; None for a node that is no layer."""
        name = packet(node.op)
        if name == _ATTENTION or self._weighs_values(node):
            return "attention"
        if not self.moving(node):
            return None
        if name in _RECURRENT:
            return _RECURRENT[name]
        if "conv" in name:
            return "conv"
        return "linear" if name in _LINEAR and self.matrices(node) else None

    def matrices(self, node: Node) -> list[str]:
        """The parameters of two or more dimensions (or values computed from such) it reads."""
        found = [name for name in node.refs() if name in self.weights]
        return [name for name in found if _rank(self.values.get(name)) >= 2]

    def _weighs_values(self, node: Node) -> bool:
        """Attention written out: a product whose left factor is a softmax."""
        if packet(node.op) not in _LINEAR or len(self.moving(node)) < 2:
            return False
        left = node.args[0] if node.args else None
        while isinstance(left, Ref) and left.name in self.nodes:
            before = self.nodes[left.name]
            if packet(before.op) in _SOFTMAX:
                return True
            if packet(before.op) not in VIEWS | {"clone", "_to_copy"}:
                return False
            left = before.args[0] if before.args else None
        return False

    def origin(self, name: str) -> str:
        """The kind of the operation a value comes from, as long as its rank stays the same."""
        rank = _rank(self.values.get(name))
        while name in self.nodes:
            node = self.nodes[name]
            kind = self.kind(node)
            if kind is not None:
                return kind
            moving = self.moving(node)
            if not moving or _rank(self.values.get(moving[0])) != rank:
                break
            name = moving[0]
        return "other"

    def merged(self, name: str) -> str:
        """Attention's heads side by side again: the last value that only moves those of `name`."""
        while len(self.users.get(name, ())) == 1:
            after = self.nodes[self.users[name][0]]
            if packet(after.op) not in VIEWS | {"clone"} or after.many:
                break
            name = after.name
        return name

    def carried(self, start: str, end: str, matrices: int = 0) -> bool:
        """Whether `end` holds the values of `start`: moved, copied, or with state added.

        On the way they may pass through so many `matrices`: attention's output projection.
        """
        while end != start:
            node = self.nodes.get(end)
            if node is None:
                return False
            if self.kind(node) == "linear":
                matrices -= 1
            if matrices < 0 or not (self.kind(node) == "linear" or packet(node.op) in _CARRY):
                return False
            moving = self.moving(node)
            if len(moving) != 1:
                return False
            end = moving[0]
        return True


def candidates(flow: Flow) -> list[Candidate]:
    """Default layers in order of computation; several may stand for one tensor.

    The value is what the module's forward hook would see; where one module applies several
    matrices, the inner ones go by the name of their parameter.
    """
    found = []
    for node in flow.document.nodes:
        kind = flow.kind(node)
        if kind is not None:
            found.append(_candidate(flow, node, kind))
    return list(_distinct(found))


def _candidate(flow: Flow, node: Node, kind: str) -> Candidate:
    output = flow.outputs.get((node.module, node.call), "") if node.module else ""
    if flow.carried(node.name, output, 1 if kind == "attention" else 0):
        return Candidate(layer_name(node.module, node.call), output, kind)
    result = flow.merged(node.name) if kind == "attention" else _first_result(flow, node)
    return Candidate(_own_name(flow, node), result, kind)


def _first_result(flow: Flow, node: Node) -> str:
    """The node itself, or the one that takes the first of its several results."""
    if not node.many:
        return node.name
    for other in flow.document.nodes:
        if other.op == "getitem" and other.args == (Ref(node.name), 0):
            return other.name
    return node.name


def _own_name(flow: Flow, node: Node) -> str:
    for name in flow.matrices(node):
        if name in flow.slots:
            stem = _SUFFIX.sub("", flow.slots[name].key)
            if stem and stem not in flow.called:
                return layer_name(stem, node.call)
    return f"{node.module}.{node.name}" if node.module else node.name


def _distinct(found: list[Candidate]) -> Iterator[Candidate]:
    """A name for one tensor only: a second tensor of that name gets the next number."""
    taken: dict[str, str] = {}
    for candidate in found:
        name, number = candidate.name, 1
        while taken.setdefault(name, candidate.node) != candidate.node:
            number += 1
            name = layer_name(candidate.name.split("#")[0], number)
        yield Candidate(name, candidate.node, candidate.kind)


def _rank(value: Value | None) -> int:
    return len(value.shape) if value is not None else 0
