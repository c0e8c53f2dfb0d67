"""Shapes of LSTM, GRU and RNN in closed form.

torch's own rule walks through every time step, and the kernels behind these operators check less
than others do: so every weight and state is compared here with what the first two say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import Node, Ref, Value
from ndt_offline.graph.operations import packet

Values = tuple[Value | None, ...]
Shape = tuple[int, ...]
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent_result(node: Node, known: Mapping[str, Values]) -> Values:
    """(output, last state, last cell) of `aten.lstm.input`, (output, last state) of the others.

    input [batch, time, features] (or time first), states [layers * directions, batch, size].
    RefusedError for shapes that do not belong together, packed sequences, or a large interior.
    """
    wrong = RefusedError(f"node {node.name}: {node.op} does not apply to these shapes")
    if not node.op.endswith(".input") or len(node.args) != 9 or node.kwargs:
        raise wrong
    x, states, weights, biases, layers, _, training, both, first = node.args
    flags = (biases, training, both, first)
    shape = _shape(x, known)
    if any(type(flag) is not bool for flag in flags) or training or len(shape) != 3:
        raise wrong
    shapes = _shapes(weights, known)
    if type(layers) is not int or not 0 < layers <= len(shapes) or len(shapes) < 2:
        raise wrong
    gates, ways = _GATES[packet(node.op)], 2 if both else 1
    size, out = _sizes(shapes, gates)
    batch, time = (shape[0], shape[1]) if first else (shape[1], shape[0])
    state: list[Shape] = [(layers * ways, batch, out), (layers * ways, batch, size)]
    expected = _weights(gates, size, out, shape[2], layers, ways, biases)
    given = _shapes(states if isinstance(states, list) else [states], known)
    if shapes != expected or given != state[: 2 if packet(node.op) == "lstm" else 1]:
        raise wrong
    if batch * time * gates * size * ways > 1 << 30:
        raise RefusedError(f"node {node.name}: {batch} x {time} steps of {size} units are too many")
    return _results(node, known, (*shape[:2], ways * out), state)


def _results(node: Node, known: Mapping[str, Values], output: Shape, state: list[Shape]) -> Values:
    first = known[node.args[0].name][0]
    dtype = first.dtype if first is not None else "float32"
    shapes = [output, *state[: 2 if packet(node.op) == "lstm" else 1]]
    return tuple(Value(dtype, shape) for shape in shapes)


def _sizes(shapes: list[Shape], gates: int) -> tuple[int, int]:
    """Hidden units, and what each step hands on: fewer with a projection."""
    rows = shapes[0][0] if shapes[0] else 0
    out = shapes[1][1] if len(shapes[1]) == 2 else 0
    return rows // gates, out


def _weights(
    gates: int, size: int, out: int, features: int, layers: int, ways: int, biases: bool
) -> list[Shape]:
    """The shapes of all weights in torch's order: layer by layer, both ways of each."""
    expected: list[Shape] = []
    for layer in range(layers):
        inside = features if layer == 0 else ways * out
        one: list[Shape] = [(gates * size, inside), (gates * size, out)]
        one += [(gates * size,)] * 2 if biases else []
        one += [(out, size)] if out != size else []
        expected += one * ways
    return expected


def _shape(argument: Any, known: Mapping[str, Values]) -> Shape:
    value = known[argument.name][0] if isinstance(argument, Ref) else None
    return value.shape if value is not None else ()


def _shapes(arguments: Any, known: Mapping[str, Values]) -> list[Shape]:
    return [_shape(a, known) for a in arguments] if isinstance(arguments, list) else []
