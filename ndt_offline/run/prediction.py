"""Prediction of a checkpoint from the two before it, in integers alone.

A vector is read as ordered integers o (see `integers`). With o1, o2 the two checkpoints before,

    linear    residual = o - (o1 + ((o1 - o2) >> 1))      half of the last change goes on
    previous  residual = o - o1

where every operation wraps around: no rounding, no NaN rules, every bit pattern comes back.
Signed residuals are coded as they are; unsigned ones are zigzag(residual), which maps
0, -1, 1, -2, ... to 0, 1, 2, 3, ...: slightly smaller when coded, and four more passes to decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ndt_offline.run.grid import Scales, from_grid
from ndt_offline.run.integers import (
    BLOCK,
    KEPT,
    Integers,
    buffers,
    is_float,
    on_grid,
    order,
    ordered_of,
    remember,
    width,
)
from ndt_offline.run.layout import Bytes, aligned

NEEDS = {"previous": 1, "linear": 2}  # checkpoints before, by the name of the filter
_fused: Callable[..., None] | None = None
# While a training runs: passes over more than the second-level cache slow its core by a fifth.
BESIDE = 16_384


def fuse() -> None:
    """From now on restore float32 in one compiled pass; without a numba that works, do nothing."""
    global _fused
    if _fused:
        return
    try:
        from ndt_offline.run import fused

        bits = np.arange(-3, 3, dtype=np.int32) * 500_000_000
        known = [bits.view(np.uint8), bits[::-1].copy().view(np.uint8)]
        expected, found = restore(bits.copy(), known, "float32"), bits.copy()
        fused.restore(found, *(vector.view(np.int32) for vector in known))
    except Exception:
        return
    if found.tobytes() == expected.tobytes():
        _fused = fused.restore


def residuals(
    now: Bytes,
    before: Sequence[Bytes],
    dtype: str,
    scales: Scales | None = None,
    signed: bool = False,
) -> Integers:
    """What prediction leaves from one or two checkpoints before (newest first)."""
    out = np.empty(len(now) // width(dtype), f"{'i' if signed else 'u'}{width(dtype)}")
    for part, scratch, spare, (here, *bases) in _blocks((now, *before), dtype, scales, BESIDE):
        predicted = _predicted(bases, spare)
        if signed:
            np.subtract(here, predicted, out=out[part])
            continue
        np.subtract(here, predicted, out=spare)
        np.right_shift(spare, 8 * spare.itemsize - 1, out=scratch)
        spare <<= 1
        np.bitwise_xor(spare, scratch, out=out[part].view(spare.dtype))
    return out


def restore(
    residual: Integers, before: Sequence[Bytes], dtype: str, scales: Scales | None = None
) -> Bytes:
    """The vector of which `residuals` is left; its memory is used. The inverse, bit for bit."""
    simple = dtype == "float32" and residual.dtype == np.int32 and len(before) == 2
    if _fused and simple and not scales:
        _fused(residual, *(vector.view(np.int32) for vector in before))
        return residual.view(np.uint8)
    found = _Found(residual.view(f"i{width(dtype)}"), dtype, scales)
    for part, scratch, spare, bases in _blocks(before, dtype, scales):
        _add(residual[part], _predicted(bases, spare), found.ordered[part], scratch)
        found.settle(part, scratch)
    return found.vector()


def expect(
    before: Sequence[Bytes], dtype: str, scales: Scales | None = None
) -> tuple[Integers, Bytes]:
    """The linear prediction, and the size class of every element's last change |o1 - o2|.

    The class is about the change's number of bits. What is left after the prediction grows with
    it, so elements of one class are worth coding together.
    """
    predicted = np.empty(len(before[0]) // width(dtype), f"i{width(dtype)}")
    classes = np.empty(len(predicted), np.uint8)
    for part, scratch, _, bases in _blocks(before[:2], dtype, scales):
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
    found = _Found(residual.view(predicted.dtype), dtype, scales)
    scratch = buffers(1, predicted.dtype)[0]
    for start in range(0, len(residual), BLOCK):
        part = slice(start, min(start + BLOCK, len(residual)))
        spare = scratch[: part.stop - start]
        _add(residual[part], predicted[part], found.ordered[part], spare)
        found.settle(part, spare)
    return found.vector()


class _Found:
    """A vector on its way back from ordered integers, which are kept for what builds on it."""

    def __init__(self, ordered: Integers, dtype: str, scales: Scales | None) -> None:
        self.ordered, self._dtype, self._scales = ordered, dtype, scales
        self._float = scales is None and is_float(dtype)
        self._kept = (self._float or bool(scales)) and ordered.nbytes <= KEPT
        own = self._float and self._kept
        self._bits = aligned(len(ordered), ordered.dtype) if own else ordered

    def settle(self, part: slice, scratch: Integers) -> None:
        if self._float:
            order(self.ordered[part], self._bits[part], scratch)

    def vector(self) -> Bytes:
        if self._scales:
            vector = from_grid(self.ordered, self._dtype, self._scales)
        else:
            vector = self._bits.view(np.uint8)
        if self._kept:
            remember(vector, self.ordered, self._scales)
        return vector


def _predicted(bases: list[Integers], out: Integers) -> Integers:
    if len(bases) == 1:
        return bases[0]
    np.subtract(bases[0], bases[1], out=out)
    out >>= 1
    out += bases[0]
    return out


def _add(residual: Integers, base: Integers, out: Integers, scratch: Integers) -> None:
    """out = base + residual, which zigzag has made unsigned or not; out may be residual."""
    if residual.dtype.kind == "i":
        np.add(base, residual, out=out)
        return
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


def _blocks(vectors: Sequence[Bytes], dtype: str, scales: Scales | None, block: int = BLOCK) -> Any:
    """Slices, two buffers to change, and the ordered integers of every vector there, to be read."""
    kind = np.dtype(f"i{width(dtype)}")
    turned = scales is None and is_float(dtype)
    if scales:
        typed = [on_grid(vector, dtype, scales) for vector in vectors]
    else:
        typed = [
            ordered_of(v, kind, block) if turned and v.nbytes <= KEPT else v.view(kind)
            for v in vectors
        ]
    size = len(typed[0])
    rows = buffers(len(typed) + 2, kind, block)
    for start in range(0, size, block):
        part = slice(start, min(start + block, size))
        scratch, spare, *here = rows[:, : part.stop - start]
        if turned and vectors[0].nbytes > KEPT:
            for buffer, vector in zip(here, typed, strict=True):
                order(vector[part], buffer, scratch)
        else:
            here = [vector[part] for vector in typed]
        yield part, scratch, spare, here
