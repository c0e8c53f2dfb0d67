"""A document made ready to run: operators looked up, dead nodes left out, last uses known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ndt_offline.graph.document import Document, Named, Node, Ref, found
from ndt_offline.graph.operations import packet, resolve, takes
from ndt_offline.graph.signatures import check_call

# A view of a tensor whose copies were left out may need a copy itself: reshape makes it.
_RESHAPE = {"aten.view.default", "aten._unsafe_view.default"}


@dataclass(frozen=True, slots=True)
class Step:
    """One operator call; `frees` are the values that nothing reads after it."""

    name: str
    op: str
    operator: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    placed: bool
    frees: tuple[str, ...]

    def apply(self, values: dict[str, Any], device: Any) -> Any:
        """The operator on the current values; new tensors are made on `device`."""
        if self.operator is None:
            return values[self.args[0].name][self.args[1]]
        args = [values[a.name] if type(a) is Ref else _fill(a, values) for a in self.args]
        if not self.kwargs and not self.placed:
            return self.operator(*args)
        kwargs = {key: _fill(a, values) for key, a in self.kwargs.items()}
        if self.placed:
            kwargs["device"] = device
        return self.operator(*args, **kwargs)


def make_steps(document: Document, wanted: Collection[str] | None) -> list[Step]:
    """Steps for the output and `wanted` nodes (None: every node), in order."""
    keep = needed(document, wanted)
    nodes = [node for node in document.nodes if node.name in keep]
    frees = last_uses(nodes, document.output)
    return [_step(node, tuple(frees.get(node.name, ()))) for node in nodes]


def needed(document: Document, wanted: Collection[str] | None) -> set[str]:
    """Names of the output, the wanted values and everything they are computed from."""
    if wanted is None:
        return {node.name for node in document.nodes}
    keep = {document.output, *wanted}
    for node in reversed(document.nodes):
        if node.name in keep:
            keep.update(node.refs())
    return keep


def last_uses(nodes: list[Node], output: str) -> dict[str, list[str]]:
    """For every step the values it is the last to read; a value nobody reads goes at once."""
    last: dict[str, str] = {}
    for node in nodes:
        last[node.name] = node.name
        last.update(dict.fromkeys(node.refs(), node.name))
    last.pop(output, None)
    frees: dict[str, list[str]] = {}
    for name, reader in last.items():
        frees.setdefault(reader, []).append(name)
    return frees


def _step(node: Node, frees: tuple[str, ...]) -> Step:
    if node.op == "getitem":
        return Step(node.name, node.op, None, node.args, {}, False, frees)
    op = "aten.reshape.default" if node.op in _RESHAPE else node.op
    operator = resolve(op, node.name)
    check_call(operator, node)
    alone = not any(True for _ in found(node.args))
    args = tuple(_ready(argument) for argument in node.args)
    kwargs = {key: _ready(argument) for key, argument in node.kwargs.items()}
    placed = alone and takes(operator, "device") and not packet(op).endswith("_like")
    return Step(node.name, node.op, operator, args, kwargs, placed, frees)


def _ready(argument: Any) -> Any:
    """Named constants become torch's; lists that hold no reference are left as they are."""
    if isinstance(argument, Named):
        import torch

        return getattr(torch, argument.name)
    if isinstance(argument, (list, tuple)) and any(True for _ in found(argument)):
        return _Nested(tuple(argument))
    return argument


@dataclass(frozen=True, slots=True)
class _Nested:
    items: tuple[Any, ...]


def _fill(argument: Any, values: dict[str, Any]) -> Any:
    if type(argument) is Ref:
        return values[argument.name]
    if type(argument) is _Nested:
        return [_fill(item, values) for item in argument.items]
    return argument
