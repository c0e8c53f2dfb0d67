"""Vectors of four float64 in functions that numba compiles; importing this imports numba.

LLVM makes vectors of a plain loop only where it can show that no array overlaps another, and adds
up in its own order. Here both are said: an array is read and written four entries at a time, at
places that are multiples of four, and sums have one order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, register_model

WIDTH = 4
_FOUR = ir.VectorType(ir.DoubleType(), WIDTH)
_ALIGNED = 32  # bytes, as numba allocates
_ANY = ir.Constant(_FOUR, ir.Undefined)
_FUSED = ("contract",)  # one rounding where the processor multiplies and adds in one step


def has_wider() -> bool:
    """Whether this processor has vectors of eight: LAPACK's kernels use them."""
    return bool(binding.get_host_cpu_features().get("avx512f"))


def _inside(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


class Vector(types.Type):
    """Numba's name for the type."""

    def __init__(self) -> None:
        super().__init__(name="Vector4")


_vector = Vector()


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FOUR)


def _place(context: Any, builder: Any, array: Any, value: Any, at: Any) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), _FOUR.as_pointer())


def _index(at: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), at)


@_inside
def load(typing: Any, array: Any, at: Any) -> Any:
    """Four entries of an array [n], from `at` on."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        place = _place(context, builder, signature.args[0], given[0], given[1])
        return builder.load(place, align=_ALIGNED)

    return _vector(array, types.intp), code


@_inside
def store(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """Put four entries into an array [n], from `at` on."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        place = _place(context, builder, signature.args[0], given[0], given[1])
        builder.store(given[2], place, align=_ALIGNED)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), code


@_inside
def spread(typing: Any, number: Any) -> Any:
    """One number, four times."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        first = builder.insert_element(_ANY, given[0], _index(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, _ANY, order)

    return _vector(types.float64), code


@_inside
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, entry by entry."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        product = builder.fmul(given[0], given[1], flags=_FUSED)
        return builder.fadd(product, given[2], flags=_FUSED)

    return _vector(_vector, _vector, _vector), code


@_inside
def total(typing: Any, vector: Any) -> Any:
    """The sum of four entries."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        one, two, three, four = (builder.extract_element(given[0], _index(k)) for k in range(WIDTH))
        return builder.fadd(builder.fadd(one, three), builder.fadd(two, four))

    return types.float64(_vector), code
