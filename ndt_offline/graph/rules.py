"""Shapes of the most common operations in closed form.

torch's own shape rules (the `meta` device) cost more than a second of imports per process. A graph
that holds only what is here, as an MLP's does, is checked without them; `guards` uses them for the
rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import Node, Ref, Value
from ndt_offline.graph.operations import packet

Values = tuple[Value | None, ...]
# One result like the first argument, whose dtype is floating.
_SAME_NAMES = """
relu gelu silu sigmoid tanh elu leaky_relu hardswish hardsigmoid hardtanh softplus selu mish relu6
exp neg abs sqrt rsqrt square sin cos clone layer_norm group_norm
"""
_SAME = frozenset(_SAME_NAMES.split())
_BROADCAST = frozenset({"add", "sub", "mul", "div"})


def known_result(node: Node, known: Mapping[str, Values]) -> Values | None:
    """What a node gives by its arguments' shapes; None where no rule here applies.

    RefusedError where the arguments cannot be right.
    """
    name = packet(node.op)
    if node.kwargs:
        return None
    if name in _SAME:
        value = _value(node, 0, known)
        return (value,) if value is not None and value.floating else None
    rule = _RULES.get(name) or (_broadcast if name in _BROADCAST else None)
    return rule(node, known) if rule else None


def _value(node: Node, index: int, known: Mapping[str, Values]) -> Value | None:
    argument = node.args[index] if len(node.args) > index else None
    if not isinstance(argument, Ref):
        return None
    values = known[argument.name]
    return values[0] if len(values) == 1 else None


def _linear(node: Node, known: Mapping[str, Values]) -> Values | None:
    x, weight = _value(node, 0, known), _value(node, 1, known)
    if x is None or weight is None or not x.shape or len(weight.shape) != 2:
        return None
    bias = _value(node, 2, known)
    fits = x.shape[-1] == weight.shape[1] and x.dtype == weight.dtype
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        raise RefusedError(f"node {node.name}: {node.op} does not apply to {x} and {weight}")
    return (Value(x.dtype, (*x.shape[:-1], weight.shape[0])),)


def _reshape(node: Node, known: Mapping[str, Values]) -> Values | None:
    x = _value(node, 0, known)
    sizes = node.args[1] if len(node.args) == 2 else None
    if x is None or not isinstance(sizes, list) or any(type(size) is not int for size in sizes):
        return None
    if min(sizes, default=0) < 0:
        return None
    if math.prod(sizes) != x.elements:
        raise RefusedError(f"node {node.name}: {x} cannot have the shape {sizes}")
    return (Value(x.dtype, tuple(sizes)),)


def _getitem(node: Node, known: Mapping[str, Values]) -> Values | None:
    values, index = known[node.args[0].name], node.args[1]
    if index >= len(values) or values[index] is None:
        raise RefusedError(f"node {node.name}: {node.args[0].name} has no result {index}")
    return (values[index],)


def _broadcast(node: Node, known: Mapping[str, Values]) -> Values | None:
    left, right = _value(node, 0, known), _value(node, 1, known)
    if left is None or right is None or len(node.args) > 2 or not left.floating:
        return None
    if left.dtype != right.dtype or left.shape != right.shape:
        return None
    return (left,)


def _convolution(node: Node, known: Mapping[str, Values]) -> Values | None:
    x, weight = _value(node, 0, known), _value(node, 1, known)
    if x is None or weight is None or len(x.shape) != len(weight.shape) or len(x.shape) < 3:
        return None
    space = len(x.shape) - 2
    defaults: tuple[Any, ...] = ([1] * space, [0] * space, [1] * space, 1)
    stride, padding, dilation, groups = (*node.args[3:], *defaults[len(node.args[3:]) :])
    plain = [isinstance(a, list) and len(a) == space for a in (stride, padding, dilation)]
    if not all(plain) or type(groups) is not int or weight.shape[1] * groups != x.shape[1]:
        return None
    sizes = [
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i]
        + 1
        for i in range(space)
        if stride[i] > 0 and padding[i] >= 0 and dilation[i] > 0
    ]
    if len(sizes) != space or min(sizes) < 1 or x.dtype != weight.dtype:
        return None
    return (Value(x.dtype, (x.shape[0], weight.shape[0], *sizes)),)


_RULES: dict[str, Callable[[Node, Mapping[str, Values]], Values | None]] = {
    "linear": _linear,
    "view": _reshape,
    "reshape": _reshape,
    "_unsafe_view": _reshape,
    "getitem": _getitem,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
}
