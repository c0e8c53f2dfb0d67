"""Whether the arguments of a node are what its operator takes.

torch's own parser lets numbers pass for dtypes and crashes on those that are none, so every
argument is compared with the operator's schema before torch sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import Named, Node, Ref
from ndt_offline.graph.operations import packet

_LAST = (1 << 63) - 1
_SLICES = frozenset({"slice", "slice_scatter"})


def check_call(operator: Any, node: Node) -> None:
    """RefusedError where a node's arguments do not fit `operator`: number, names, or types."""
    schema = operator._schema.arguments
    positional = [argument for argument in schema if not argument.kwarg_only]
    by_name = {argument.name: argument for argument in schema}
    taken = {argument.name for argument in positional[: len(node.args)]}
    if len(node.args) > len(positional) or not set(node.kwargs) <= set(by_name) - taken:
        raise RefusedError(f"node {node.name}: {node.op} takes other arguments")
    pairs = list(zip(positional, node.args, strict=False))
    pairs += [(by_name[key], value) for key, value in node.kwargs.items()]
    for argument, value in pairs:
        far = _LAST in (value if isinstance(value, list) else [value])
        far = far and packet(node.op) not in _SLICES
        if far or not fits(str(argument.real_type), value):
            raise RefusedError(
                f"node {node.name}: {node.op} takes no {ascii(value)[:60]} for {argument.name}"
            )


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of the schema type `kind`, such as `Optional[List[SymInt]]`."""
    if kind.startswith("Optional["):
        return value is None or fits(kind[9:-1], value)
    if kind.startswith("List["):
        inner = kind[5:-1]
        whole = isinstance(value, list) and all(fits(inner, item) for item in value)
        return whole or (inner in ("int", "SymInt") and _integer(value))
    return kind in _KINDS and _KINDS[kind](value)


def _integer(value: Any) -> bool:
    # Sizes, axes and counts. Beyond that there is only the end of a slice, "to the last".
    return type(value) is int and (abs(value) <= 1 << 31 or value == _LAST)


def _number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _named(kind: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Named) and value.kind == kind


_KINDS: dict[str, Callable[[Any], bool]] = {
    # A number stands for a tensor of no dimensions: x + 1 is exported so.
    "Tensor": lambda value: isinstance(value, Ref) or _number(value),
    "int": _integer,
    "SymInt": _integer,
    "float": _number,
    "number": _number,
    "Scalar": _number,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "ScalarType": _named("dtype"),
    "MemoryFormat": _named("memory_format"),
}
