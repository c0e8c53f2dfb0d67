"""Recorded shapes are claims: they are derived again, without memory, before anything is computed.

Most nodes have a closed form (`rules`); the others run once on torch's `meta` device, where a
tensor has a shape and no storage. A node whose result is not what the file says, or larger than is
allowed, is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import Document, Node, Value
from ndt_offline.graph.operations import RECURRENT, VIEWS, packet
from ndt_offline.graph.parsing import MAX_ELEMENTS
from ndt_offline.graph.recurrence import recurrent_result
from ndt_offline.graph.rules import Values, known_result
from ndt_offline.graph.steps import Step, last_uses

MAX_PIECES = 10_000
_SPLITS = frozenset({"unbind", "split", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk"})


def check_shapes(document: Document, steps: Iterable[Step]) -> None:
    """Derive the result of each of `steps` (all of the document's), compare with its claim.

    A node's arguments have been checked when it is reached, so they are as the file says.
    """
    known: dict[str, Values] = {slot.name: (slot.value,) for slot in document.slots()}
    many: set[str] = set()
    nodes = {node.name: node for node in document.nodes}
    for step in steps:
        node = nodes[step.name]
        _check_arguments(node, many)
        if packet(node.op) in RECURRENT:
            result: Values | None = recurrent_result(node, known)
        else:
            result = known_result(node, known)
        if result is None:
            result = _derive(node, step, known)
        _compare(node, result)
        known[node.name] = node.values
        if node.many:
            many.add(node.name)


def peak_bytes(document: Document) -> int:
    """Most bytes of intermediate values that live at one time, by the recorded shapes."""
    sizes = {node.name: node_bytes(node) for node in document.nodes}
    frees = last_uses(list(document.nodes), document.output)
    live = peak = 0
    for node in document.nodes:
        live += sizes[node.name]
        peak = max(peak, live)
        live -= sum(sizes.get(name, 0) for name in frees.get(node.name, ()))
    return peak


def node_bytes(node: Node) -> int:
    """Bytes that a node's results take; 0 for a view of its argument."""
    if packet(node.op) in VIEWS:
        return 0
    return sum(value.bytes for value in node.values if value is not None)


def check_memory(document: Document) -> None:
    """RefusedError where the intermediate values do not fit this machine's memory."""
    peak, have = peak_bytes(document), physical_memory()
    if peak > have:
        raise RefusedError(
            f"the forward pass needs {peak / 2**30:.1f} GiB, the machine has {have / 2**30:.1f}",
            remedy="a smaller probe, or a machine with more memory",
        )


def physical_memory() -> int:
    """Bytes of main memory; 16 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 << 30


def _check_arguments(node: Node, many: set[str]) -> None:
    """Only `getitem` reads a value that is several; splits stay within bounds."""
    if node.many and len(node.values) > MAX_PIECES:
        raise RefusedError(f"node {node.name} has {len(node.values)} results")
    for name in node.refs():
        if (name in many) != (node.op == "getitem"):
            raise RefusedError(f"node {node.name}: {node.op} does not apply to {name}")


def _derive(node: Node, step: Step, known: Mapping[str, Values]) -> Values:
    import torch

    arguments = {name: _empty(known[name][0]) for name in node.refs()}
    if packet(node.op) in _SPLITS:
        _check_pieces(node, arguments)
    try:
        result = step.apply(arguments, torch.device("meta"))
    except Exception as error:  # whatever torch raises for nonsense: it is the file's fault
        raise RefusedError(f"node {node.name}: {node.op} does not apply: {_first(error)}") from None
    if node.many != isinstance(result, (tuple, list)):
        raise RefusedError(f"node {node.name}: {node.op} has another number of results")
    return tuple(_claim(tensor) for tensor in (result if node.many else [result]))


def _empty(value: Value | None) -> Any:
    import torch

    if value is None:
        return None
    return torch.empty(value.shape, dtype=getattr(torch, value.dtype), device="meta")


def _claim(tensor: Any) -> Value | None:
    if tensor is None:
        return None
    return Value(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _check_pieces(node: Node, arguments: Mapping[str, Any]) -> None:
    """A split into a billion views is as harmful as a large tensor, on any device."""
    shape = next((tuple(t.shape) for t in arguments.values() if t is not None), ())
    first = node.args[1] if len(node.args) > 1 else None
    if packet(node.op) in ("chunk", "unsafe_chunk", "tensor_split"):
        pieces = first if type(first) is int else 0
    elif packet(node.op) == "unbind":
        axis = first if type(first) is int and abs(first) < len(shape) else 0
        pieces = shape[axis] if shape else 0
    else:
        pieces = max(shape, default=0) // max(first, 1) if type(first) is int else 0
    if pieces > MAX_PIECES:
        raise RefusedError(f"node {node.name}: {node.op} into {pieces} pieces")


def _compare(node: Node, result: Values) -> None:
    if len(result) != len(node.values):
        raise RefusedError(
            f"node {node.name}: the file says {len(node.values)} results, {node.op} gives "
            f"{len(result)}"
        )
    for value, derived in zip(node.values, result, strict=True):
        if derived is not None and max(derived.elements, *derived.shape, 0) > MAX_ELEMENTS:
            raise RefusedError(f"node {node.name} has the shape {list(derived.shape)}")
        if value is not None and derived != value:
            raise RefusedError(
                f"node {node.name}: the file says {value}, {node.op} gives {derived}"
            )
