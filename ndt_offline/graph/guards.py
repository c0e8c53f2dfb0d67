"""Recorded shapes are claims: they are derived again, without memory, before anything is computed.

Every node runs once on torch's `meta` device, where a tensor has a shape and no storage. A node
whose result is not what the file says, or larger than is allowed, is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import Document, Node, Ref, Value
from ndt_offline.graph.operations import RECURRENT, VIEWS, packet
from ndt_offline.graph.parsing import MAX_ELEMENTS

if TYPE_CHECKING:
    from ndt_offline.graph.steps import Step

MAX_PIECES = 10_000


def check_shapes(document: Document, steps: Iterable[Step]) -> None:
    """Run `steps` (all of the document's) on the meta device and compare with the claims."""
    values: dict[str, Any] = {slot.name: _empty(slot.value) for slot in document.slots()}
    nodes = {node.name: node for node in document.nodes}
    for step in steps:
        node = nodes[step.name]
        _check_pieces(node, values)
        if packet(node.op) in RECURRENT:
            result = _recurrent(node)
        else:
            result = _apply(step, values)
        _check_result(node, result)
        values[step.name] = result


def peak_bytes(document: Document, steps: Iterable[Step]) -> int:
    """Most bytes of intermediate values that live at one time, by the recorded shapes."""
    sizes = {node.name: node_bytes(node) for node in document.nodes}
    live = peak = 0
    for step in steps:
        live += sizes[step.name]
        peak = max(peak, live)
        live -= sum(sizes.get(name, 0) for name in step.frees)
    return peak


def node_bytes(node: Node) -> int:
    """Bytes that a node's results take; 0 for a view of its argument."""
    if packet(node.op) in VIEWS:
        return 0
    return sum(value.bytes for value in node.values if value is not None)


def check_memory(document: Document, steps: Iterable[Step]) -> None:
    """RefusedError where the intermediate values do not fit this machine's memory."""
    peak, have = peak_bytes(document, steps), physical_memory()
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


def _empty(value: Value) -> Any:
    import torch

    return torch.empty(value.shape, dtype=getattr(torch, value.dtype), device="meta")


def _apply(step: Step, values: dict[str, Any]) -> Any:
    import torch

    try:
        return step.apply(values, torch.device("meta"))
    except RefusedError:
        raise
    except Exception as error:  # whatever torch raises for nonsense: it is the file's fault
        raise RefusedError(f"node {step.name}: {step.op} does not apply: {_first(error)}") from None


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _check_pieces(node: Node, values: dict[str, Any]) -> None:
    """A split into a billion views is as harmful as a large tensor."""
    if node.many and len(node.values) > MAX_PIECES:
        raise RefusedError(f"node {node.name}: {len(node.values)} results")
    name = packet(node.op)
    if name not in ("unbind", "split", "chunk", "tensor_split") or not node.args:
        return
    value: Any = values.get(node.args[0].name) if isinstance(node.args[0], Ref) else None
    if not hasattr(value, "shape"):
        raise RefusedError(f"node {node.name}: {node.op} takes a tensor")
    if max(value.shape, default=0) > MAX_PIECES and len(node.values) * 2 < _pieces(node, value):
        raise RefusedError(f"node {node.name}: {node.op} makes more results than the file says")


def _pieces(node: Node, value: Any) -> int:
    size = node.args[1] if len(node.args) > 1 else 1
    longest = max(value.shape)
    if packet(node.op) in ("split",) and isinstance(size, int):
        return int(longest // max(size, 1))
    if packet(node.op) in ("chunk", "tensor_split"):
        return size if isinstance(size, int) else 1
    return int(longest)


def _recurrent(node: Node) -> Any:
    """An LSTM's or GRU's claim is taken, bounded: its meta kernel is a loop over the time steps."""
    return [None if value is None else _empty(value) for value in node.values]


def _check_result(node: Node, result: Any) -> None:
    results = list(result) if node.many and isinstance(result, (tuple, list)) else [result]
    if node.many != isinstance(result, (tuple, list)) or len(results) != len(node.values):
        raise RefusedError(f"node {node.name}: {node.op} has another number of results")
    for value, tensor in zip(node.values, results, strict=True):
        if tensor is not None and tensor.numel() > MAX_ELEMENTS:
            raise RefusedError(f"node {node.name} has {tensor.numel()} elements")
        if value is None:
            continue
        have = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        if have != (value.dtype, value.shape):
            raise RefusedError(
                f"node {node.name}: the file says {value}, {node.op} gives {have[0]}{list(have[1])}"
            )
