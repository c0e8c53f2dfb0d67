"""Tridiagonal form of a symmetric matrix, one pass over it per reflection: compiled by numba.

Householder's reduction (Golub and Van Loan, Matrix Computations, 8.3.1) reflects one column after
another: A <- A - v w' - w v', where w comes of A v. LAPACK walks through A twice for each, for the
product and for the change, at the pace of the cache. Here one walk makes the change of the last
reflection and the product with the next one (Howell et al., Cache Efficient Bidiagonalization
Using BLAS 2.5 Operators, ACM TOMS 34(3), 2008), through a packed lower triangle: half the memory,
and no two of its columns in each other's place in the cache.

Importing this module imports numba, and the first call compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from ndt_offline.compiled import compiled

LEAST = 1e-290  # a sum of squares below it has lost digits: its column is as good as zero

# Vectors of four float64. LLVM makes them of a plain loop only where it can show that no array
# overlaps another, and adds up in its own order; here both are said. They are in this file because
# numba compiles again what it kept when the file of the function itself has changed, and no other.
WIDTH = 4
_FOUR = ir.VectorType(ir.DoubleType(), WIDTH)
_ALIGNED = 32  # bytes, as numba allocates
_ANY = ir.Constant(_FOUR, ir.Undefined)
_FUSED = ("contract",)  # one rounding where the processor multiplies and adds in one step


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


@compiled
def _walk(packed: Any, at: int, j: int, v: Any, w: Any, u: Any, product: Any) -> None:
    """Change columns j to j + 3, and add to A u what they and the rows beside them hold.

    packed[at:]: the four columns one after the other, each from row j down. All four rows and
    columns of the square on the diagonal are there.
    """
    left = len(u) - j
    one, two, three, four = at, at + left, at + 2 * left, at + 3 * left
    v1, v2, v3, v4 = spread(-v[j]), spread(-v[j + 1]), spread(-v[j + 2]), spread(-v[j + 3])
    w1, w2, w3, w4 = spread(-w[j]), spread(-w[j + 1]), spread(-w[j + 2]), spread(-w[j + 3])
    u1, u2, u3, u4 = spread(u[j]), spread(u[j + 1]), spread(u[j + 2]), spread(u[j + 3])
    zero = spread(0.0)
    sum1, sum2, sum3, sum4 = zero, zero, zero, zero
    for i in range(0, left, WIDTH):
        vi, wi, found = load(v, j + i), load(w, j + i), load(product, j + i)
        ui = load(u, j + i) if i else zero  # the square counts once
        a1 = multiply_add(wi, v1, multiply_add(vi, w1, load(packed, one + i)))
        a2 = multiply_add(wi, v2, multiply_add(vi, w2, load(packed, two + i)))
        store(packed, one + i, a1)
        store(packed, two + i, a2)
        found = multiply_add(a2, u2, multiply_add(a1, u1, found))
        sum1, sum2 = multiply_add(a1, ui, sum1), multiply_add(a2, ui, sum2)
        a3 = multiply_add(wi, v3, multiply_add(vi, w3, load(packed, three + i)))
        a4 = multiply_add(wi, v4, multiply_add(vi, w4, load(packed, four + i)))
        store(packed, three + i, a3)
        store(packed, four + i, a4)
        found = multiply_add(a4, u4, multiply_add(a3, u3, found))
        sum3, sum4 = multiply_add(a3, ui, sum3), multiply_add(a4, ui, sum4)
        store(product, j + i, found)
    product[j] += total(sum1)
    product[j + 1] += total(sum2)
    product[j + 2] += total(sum3)
    product[j + 3] += total(sum4)


@compiled
def _pack(lower: Any, before: int, starts: Any, packed: Any) -> None:
    """The triangle as `_walk` wants it, with `before` rows and columns of zeros in front."""
    side = len(lower) + before
    for j in range(side):
        first = j - j % WIDTH
        column = starts[j // WIDTH] + j % WIDTH * (side - first) - first
        for i in range(first, side):
            if min(i, j) < before:
                packed[column + i] = 0.0
            else:
                packed[column + i] = lower[min(i, j) - before, max(i, j) - before]


@compiled
def reduce(lower: Any, diagonal: Any, off: Any) -> None:
    """The form's diagonal [n] and what is beside it [n - 1], of a matrix [n, n].

    lower[j, i], i >= j: entry (i, j) of the matrix; not changed. Entries lie between 1e-100 and
    1e100 or are small beside those, so that nothing need be scaled before it is squared.
    """
    before = -len(lower) % WIDTH
    side = len(lower) + before
    starts = np.zeros(side // WIDTH + 1, np.int64)
    for group in range(side // WIDTH):
        starts[group + 1] = starts[group] + WIDTH * (side - WIDTH * group)
    packed = np.empty(starts[-1])
    _pack(lower, before, starts, packed)
    # Of the last reflection, and the next one's vector and its product; zero above its rows.
    v, w, u, product = np.zeros(side), np.zeros(side), np.zeros(side), np.zeros(side)
    zero = spread(0.0)
    for k in range(before, side - 1):
        first = k - k % WIDTH
        column = starts[k // WIDTH] + k % WIDTH * (side - first) - first
        vk, wk = spread(-v[k]), spread(-w[k])
        for i in range(first, side, WIDTH):
            entries = multiply_add(load(v, i), wk, load(packed, column + i))
            store(packed, column + i, multiply_add(load(w, i), vk, entries))
        diagonal[k - before], head = packed[column + k], packed[column + k + 1]
        for i in range(first, k + 2):
            packed[column + i] = 0.0
        sums = zero
        for i in range(first, side, WIDTH):
            entries = load(packed, column + i)
            sums = multiply_add(entries, entries, sums)
        below = total(sums)
        end, tau, scale = head, 0.0, 0.0
        if below >= LEAST:
            end = -np.copysign(np.sqrt(head * head + below), head)
            tau, scale = (end - head) / end, 1.0 / (head - end)
        off[k - before] = end
        scales = spread(scale)
        for i in range(first, side, WIDTH):
            store(u, i, multiply_add(load(packed, column + i), scales, zero))
            store(product, i, zero)
        u[k + 1] = 1.0
        for group in range((k + 1) // WIDTH, side // WIDTH):
            _walk(packed, starts[group], WIDTH * group, v, w, u, product)
        for i in range(first, k + 1):
            product[i] = 0.0
        sums = zero
        for i in range(first, side, WIDTH):
            sums = multiply_add(load(u, i), load(product, i), sums)
        along, taus = spread(-0.5 * tau * tau * total(sums)), spread(tau)
        for i in range(first, side, WIDTH):
            ui = load(u, i)
            store(w, i, multiply_add(load(product, i), taus, multiply_add(ui, along, zero)))
            store(v, i, ui)
    last = side - 1
    diagonal[last - before] = packed[starts[-1] - 1] - 2.0 * v[last] * w[last]
