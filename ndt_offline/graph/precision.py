"""Replay of a half-precision model in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ndt_offline.graph.document import Named, Node, Slot, Value
from ndt_offline.graph.program import Graph

_HALF = frozenset({"float16", "bfloat16"})


def upcast(graph: Graph) -> Graph:
    """The same graph in float32 where it was float16 or bfloat16.

    Weights, probe and constants are cast when it runs; the numbers are not those of training, but
    free of the rounding of its activations.
    """
    document = graph.document
    wide = replace(
        document,
        inputs=tuple(_slot(slot) for slot in document.inputs),
        parameters=tuple(_slot(slot) for slot in document.parameters),
        constants=tuple(_slot(slot) for slot in document.constants),
        nodes=tuple(_node(node) for node in document.nodes),
    )
    return graph.with_document(wide, cast=True)


def _value(value: Value | None) -> Value | None:
    half = value is not None and value.dtype in _HALF
    return Value("float32", value.shape) if value is not None and half else value


def _slot(slot: Slot) -> Slot:
    value = _value(slot.value)
    return slot if value is None else replace(slot, value=value)


def _node(node: Node) -> Node:
    return replace(
        node,
        values=tuple(_value(value) for value in node.values),
        args=tuple(_argument(argument) for argument in node.args),
        kwargs={key: _argument(argument) for key, argument in node.kwargs.items()},
    )


def _argument(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_argument(item) for item in argument]
    half = isinstance(argument, Named) and argument.name in _HALF
    return Named("dtype", "float32") if half else argument
