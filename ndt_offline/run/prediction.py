"""Prediction of a checkpoint from the two before it, in integers alone.

A vector is read as *ordered integers* o: for floats the bits with the magnitude inverted where the
sign is set, so that neighbouring numbers are neighbouring integers; integers as they are; values
on a grid (see `grid`) as multiples of its step. With o1, o2 the two checkpoints before,

    linear    residual = zigzag(o - (o1 + ((o1 - o2) >> 1)))      half of the last change goes on
    previous  residual = zigzag(o - o1)

where every operation wraps around: no rounding, no NaN rules, every bit pattern comes back.
zigzag maps 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ndt_offline.run.grid import Scales, from_grid, to_grid
from ndt_offline.run.layout import ITEMSIZE, Bytes

Integers = npt.NDArray[Any]

NEEDS = {"previous": 1, "linear": 2}  # checkpoints before, by the name of the filter
_local = threading.local()
BLOCK = 131_072  # elements at a time: large vectors stay in the cache


def width(dtype: str) -> int:
    """Bytes of the integers of a dtype; a complex number is two floats."""
    return ITEMSIZE[dtype] // (2 if dtype.startswith("complex") else 1)


def residuals(
    now: Bytes, before: Sequence[Bytes], dtype: str, scales: Scales | None = None
) -> Integers:
    """What prediction leaves, unsigned, from one or two checkpoints before (newest first)."""
    out = np.empty(len(now) // width(dtype), f"u{width(dtype)}")
    for part, scratch, (here, *bases) in _blocks((now, *before), dtype, scales):
        here -= _predicted(bases)
        np.right_shift(here, 8 * here.itemsize - 1, out=scratch)
        here <<= 1
        np.bitwise_xor(here, scratch, out=out[part].view(here.dtype))
    return out


def restore(
    residual: Integers, before: Sequence[Bytes], dtype: str, scales: Scales | None = None
) -> Bytes:
    """The vector of which `residuals` is left, in its place; the inverse, bit for bit."""
    out = residual.view(f"i{width(dtype)}")
    for part, scratch, bases in _blocks(before, dtype, scales):
        _add(residual[part], _predicted(bases), out[part], scratch)
        if scales is None and _is_float(dtype):
            _order(out[part], out[part], scratch)
    return from_grid(out, dtype, scales) if scales else out.view(np.uint8)


def expect(
    before: Sequence[Bytes], dtype: str, scales: Scales | None = None
) -> tuple[Integers, Bytes]:
    """The linear prediction, and the size class of every element's last change |o1 - o2|.

    The class is about the change's number of bits. What is left after the prediction grows with
    it, so elements of one class are worth coding together.
    """
    predicted = np.empty(len(before[0]) // width(dtype), f"i{width(dtype)}")
    classes = np.empty(len(predicted), np.uint8)
    for part, scratch, bases in _blocks(before[:2], dtype, scales):
        np.subtract(bases[0], bases[1], out=scratch)
        np.right_shift(scratch, 1, out=predicted[part])
        predicted[part] += bases[0]
        np.abs(scratch, out=scratch)
        classes[part] = _bit_length(scratch.view(f"u{scratch.itemsize}"))
    return predicted, classes


def restore_expected(
    residual: Integers, predicted: Integers, dtype: str, scales: Scales | None = None
) -> Bytes:
    """As `restore`, where the prediction is known already."""
    out = residual.view(predicted.dtype)
    scratch = _buffers(1, predicted.dtype)[0]
    for start in range(0, len(residual), BLOCK):
        part = slice(start, min(start + BLOCK, len(residual)))
        value, spare = out[part], scratch[: part.stop - start]
        _add(residual[part], predicted[part], value, spare)
        if scales is None and _is_float(dtype):
            _order(value, value, spare)
    return from_grid(out, dtype, scales) if scales else out.view(np.uint8)


def _predicted(bases: list[Integers]) -> Integers:
    if len(bases) == 2:
        first, second = bases
        np.subtract(first, second, out=second)
        second >>= 1
        first += second
    return bases[0]


def _add(residual: Integers, base: Integers, out: Integers, scratch: Integers) -> None:
    """out = base + what zigzag made of `residual`; out may be residual."""
    one = residual.dtype.type(1)
    np.right_shift(residual, one, out=scratch.view(residual.dtype))
    np.bitwise_and(residual, one, out=out.view(residual.dtype))  # out may be residual
    np.negative(out, out=out)
    scratch ^= out
    np.add(base, scratch, out=out)


def _bit_length(size: Integers) -> Integers:
    """Exponent of integers as floats; rounding up to the next power of two is the same anywhere."""
    wide = size.itemsize == 8
    bits: Any = size.astype(np.float64 if wide else np.float32).view(
        np.uint64 if wide else np.uint32
    )
    bits >>= bits.dtype.type(52 if wide else 23)
    bias = bits.dtype.type(1022 if wide else 126)
    np.maximum(bits, bias, out=bits)
    bits -= bias
    return bits


def _blocks(vectors: Sequence[Bytes], dtype: str, scales: Scales | None) -> Any:
    """Slices, scratch, and the ordered integers of every vector there, all free to be changed."""
    if scales:
        typed = [to_grid(vector, dtype, scales) for vector in vectors]
    else:
        typed = [vector.view(f"i{width(dtype)}") for vector in vectors]
    size = len(typed[0])
    buffers = _buffers(len(typed) + 1, typed[0].dtype)
    for start in range(0, size, BLOCK):
        part = slice(start, min(start + BLOCK, size))
        scratch, *here = buffers[:, : part.stop - start]
        for buffer, vector in zip(here, typed, strict=True):
            if scales is None and _is_float(dtype):
                _order(vector[part], buffer, scratch)
            else:
                buffer[:] = vector[part]
        yield part, scratch, here


def _buffers(rows: int, dtype: np.dtype[Any]) -> Integers:
    """Memory kept by the thread: fresh pages at every call would cost as much as the sums."""
    kept = getattr(_local, "kept", None)
    if kept is None:
        kept = _local.kept = np.empty(4 * BLOCK, np.int64)
    return kept.view(dtype)[: rows * BLOCK].reshape(rows, BLOCK)


def _order(bits: Integers, out: Integers, scratch: Integers) -> None:
    """Bits of floats <-> ordered integers: the map is its own inverse."""
    np.right_shift(bits, 8 * bits.itemsize - 1, out=scratch)
    scratch &= np.iinfo(bits.dtype).max
    np.bitwise_xor(bits, scratch, out=out)


def _is_float(dtype: str) -> bool:
    return "float" in dtype or dtype.startswith("complex")
