"""A forward pass as plain values: what graph.json holds, without torch.

A document is a list of nodes in the order of execution. A node applies one operation, named by
its aten name, to earlier values, numbers and a few named constants. It holds no code: what an
operation does is decided by the reader's own list (`operations`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FORMAT = "ndt-offline graph"
VERSION = 1
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
FLOATING = frozenset({"float64", "float32", "float16", "bfloat16"})


@dataclass(frozen=True)
class Value:
    """Dtype and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]

    @property
    def floating(self) -> bool:
        return self.dtype in FLOATING

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Ref:
    """An argument that is an earlier value of the graph."""

    name: str


@dataclass(frozen=True)
class Named:
    """An argument that is one of torch's named constants; `kind` is dtype or memory_format."""

    kind: str
    name: str


@dataclass(frozen=True)
class Slot:
    """A value that comes from outside: `key` is the name in the state dict, probe or constants."""

    name: str
    key: str
    value: Value
    aliases: tuple[str, ...] = ()
    buffer: bool = False


@dataclass(frozen=True)
class Node:
    """One operation. `module` is the innermost module it ran in, `call` that module's 1st, 2nd ...

    `values` are the results; an operation with several has `many`, and `getitem` nodes follow.
    """

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    module: str
    call: int
    values: tuple[Value | None, ...]
    many: bool = False

    @property
    def value(self) -> Value | None:
        return None if self.many else self.values[0]

    def refs(self) -> list[str]:
        """Names of the values it reads, in order of appearance."""
        return list(found(self.args)) + list(found(tuple(self.kwargs.values())))


@dataclass(frozen=True)
class Call:
    """The `call`-th call of a module returned the value of `node` (its first tensor)."""

    module: str
    call: int
    node: str


@dataclass(frozen=True)
class Document:
    """A whole graph; `structure` says how the inputs are passed: tensor, tuple or dict."""

    structure: str
    inputs: tuple[Slot, ...]
    parameters: tuple[Slot, ...]
    constants: tuple[Slot, ...]
    nodes: tuple[Node, ...]
    calls: tuple[Call, ...]
    output: str
    constants_sha256: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def slots(self) -> tuple[Slot, ...]:
        return self.inputs + self.parameters + self.constants


def found(argument: Any) -> Iterator[str]:
    """The references inside a nested argument."""
    if isinstance(argument, Ref):
        yield argument.name
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from found(item)


def layer_name(module: str, call: int) -> str:
    """`fc` for the first call of a module, `fc#2` for the second."""
    return module if call == 1 else f"{module}#{call}"


def to_plain(argument: Any) -> Any:
    """An argument as JSON: references, named constants and non-finite numbers become objects."""
    if isinstance(argument, Ref):
        return {"value": argument.name}
    if isinstance(argument, Named):
        return {argument.kind: argument.name}
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    if isinstance(argument, (list, tuple)):
        return [to_plain(item) for item in argument]
    return argument


def _plain_value(value: Value | None) -> list[Any] | None:
    return None if value is None else [value.dtype, list(value.shape)]


def _plain_slot(slot: Slot) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": slot.name, "key": slot.key, "value": _plain_value(slot.value)}
    plain |= {"aliases": list(slot.aliases)} if slot.aliases else {}
    return plain | ({"buffer": True} if slot.buffer else {})


def _plain_node(node: Node) -> dict[str, Any]:
    plain = {"name": node.name, "op": node.op, "args": to_plain(node.args)}
    if node.kwargs:
        plain["kwargs"] = {key: to_plain(value) for key, value in node.kwargs.items()}
    plain["in"] = [node.module, node.call]
    if node.many:
        plain["values"] = [_plain_value(value) for value in node.values]
    else:
        plain["value"] = _plain_value(node.values[0])
    return plain


def content(document: Document) -> dict[str, Any]:
    """What decides the results, as JSON: everything but the notes."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "structure": document.structure,
        "inputs": [_plain_slot(slot) for slot in document.inputs],
        "parameters": [_plain_slot(slot) for slot in document.parameters],
        "constants": [_plain_slot(slot) for slot in document.constants],
        "constants_sha256": document.constants_sha256,
        "nodes": [_plain_node(node) for node in document.nodes],
        "calls": [[call.module, call.call, call.node] for call in document.calls],
        "output": document.output,
    }


def dump(document: Document) -> bytes:
    """The bytes of graph.json, one node a line so that two graphs can be compared by eye."""
    plain = content(document) | {"notes": document.notes}
    lines = []
    for key, value in plain.items():
        if isinstance(value, list) and value:
            rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in value)
            lines.append(f"{json.dumps(key)}: [\n  {rows}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return ("{" + ",\n ".join(lines) + "}\n").encode()


def fingerprint(document: Document) -> str:
    """SHA-256 of the content in canonical JSON, constants included by their own checksum."""
    text = json.dumps(content(document), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
