"""How a tensor is read as a matrix [rows, features], and what its spectrum costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ndt_offline.errors import UsageError

RULES = ("rows", "tokens", "flatten", "channels")
# Kinds whose last axis holds the features, however many axes come before it.
_LAST_AXIS = frozenset({"linear", "attention", "lstm", "gru", "rnn"})


@dataclass(frozen=True)
class Layer:
    """One tensor to measure: `node` of the graph (or a parameter), read as [rows, columns]."""

    name: str
    node: str
    kind: str
    rule: str
    rows: int
    columns: int

    @property
    def smaller(self) -> int:
        """The side of the Gram matrix, and the number of singular values."""
        return min(self.rows, self.columns)

    @property
    def flops(self) -> float:
        """About m n min(m, n) for the Gram matrix (half of it) and 4/3 min^3 for its spectrum."""
        return float(self.rows) * self.columns * self.smaller + 4 / 3 * float(self.smaller) ** 3

    @property
    def bytes(self) -> int:
        """Float64 bytes of the Gram matrix and of one copy of the matrix."""
        return 8 * (self.smaller**2 + self.rows * self.columns)


def default_rule(kind: str, dimensions: int) -> str:
    """The rule for a tensor: 2-D as it is, tokens where the last axis holds features, else flatten.

    `kind` is that of the operation it came from: a convolution's 3-D output is [batch, channels,
    length] and is flattened, a linear layer's is [batch, tokens, features].
    """
    if dimensions <= 2:
        return "rows"
    if kind in _LAST_AXIS or (dimensions == 3 and kind != "conv"):
        return "tokens"
    return "flatten"


def matrix_shape(shape: Sequence[int], rule: str) -> tuple[int, int]:
    """Rows and columns of a tensor of this shape, see `layer_matrix`."""
    _check(len(shape), rule)
    if len(shape) == 1:
        return shape[0], 1
    if rule == "tokens":
        return math.prod(shape[:-1]), shape[-1]
    if rule == "channels":
        return shape[0] * math.prod(shape[2:]), shape[1]
    return shape[0], math.prod(shape[1:])


def layer_matrix(value: Any, rule: str) -> Any:
    """A torch or numpy tensor as [rows, features].

    rows      [n, d] as it is; [n] -> [n, 1]
    tokens    [..., d] -> [product of the others, d]
    flatten   [n, ...] -> [n, product of the rest]
    channels  [n, c, ...] -> [n * product of the rest, c]: every position is a sample

    Neither centred nor scaled; a view where memory allows it.
    """
    rows, columns = matrix_shape(tuple(value.shape), rule)
    if rule == "channels" and value.ndim > 2:
        value = value.reshape(value.shape[0], columns, -1).swapaxes(1, 2)
    return value.reshape(rows, columns)


def _check(dimensions: int, rule: str) -> None:
    if rule not in RULES:
        raise UsageError(f"no shape rule {rule!r}", remedy=f"one of {', '.join(RULES)}")
    if dimensions < 1 or (rule == "rows" and dimensions > 2):
        raise UsageError(f"rule {rule} does not fit a tensor of {dimensions} dimensions")
