"""Prediction of a checkpoint from the two before it, in integers alone.

A vector is read as *ordered integers* o: for floats the bits with the magnitude inverted where the
sign is set, so that neighbouring numbers are neighbouring integers; integers as they are; values
on a grid (see `grid`) as multiples of its step. With o1, o2 the two checkpoints before,

    linear    residual = o - (o1 + ((o1 - o2) >> 1))      half of the last change goes on
    previous  residual = o - o1

where every operation wraps around: no rounding, no NaN rules, every bit pattern comes back.
Signed residuals are coded as they are; unsigned ones are zigzag(residual), which maps
0, -1, 1, -2, ... to 0, 1, 2, 3, ...: slightly smaller when coded, and four more passes to decode.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ndt_offline.run.grid import Scales, from_grid, to_grid
from ndt_offline.run.layout import ITEMSIZE, Bytes, aligned

Integers = npt.NDArray[Any]

NEEDS = {"previous": 1, "linear": 2}  # checkpoints before, by the name of the filter
_local = threading.local()
_fused: Callable[..., None] | None = None
KEPT, MEMORY = 16 * 2**20, 4  # bytes of a vector whose ordered integers are kept; how many
BLOCK = 131_072  # elements at a time: large vectors stay in the cache
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


def width(dtype: str) -> int:
    """Bytes of the integers of a dtype; a complex number is two floats."""
    return ITEMSIZE[dtype] // (2 if dtype.startswith("complex") else 1)


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
    scratch = _buffers(1, predicted.dtype)[0]
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
        self._float = scales is None and _is_float(dtype)
        self._kept = self._float and ordered.nbytes <= KEPT
        self._bits = aligned(len(ordered), ordered.dtype) if self._kept else ordered

    def settle(self, part: slice, scratch: Integers) -> None:
        if self._float:
            _order(self.ordered[part], self._bits[part], scratch)

    def vector(self) -> Bytes:
        if self._scales:
            return from_grid(self.ordered, self._dtype, self._scales)
        vector = self._bits.view(np.uint8)
        if self._kept:
            _remember(vector, self.ordered)
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
    turned = scales is None and _is_float(dtype)
    if scales:
        typed = [to_grid(vector, dtype, scales) for vector in vectors]
    else:
        typed = [
            _ordered(v, kind, block) if turned and v.nbytes <= KEPT else v.view(kind)
            for v in vectors
        ]
    size = len(typed[0])
    buffers = _buffers(len(typed) + 2, kind, block)
    for start in range(0, size, block):
        part = slice(start, min(start + block, size))
        scratch, spare, *here = buffers[:, : part.stop - start]
        if turned and vectors[0].nbytes > KEPT:
            for buffer, vector in zip(here, typed, strict=True):
                _order(vector[part], buffer, scratch)
        else:
            here = [vector[part] for vector in typed]
        yield part, scratch, spare, here


def _ordered(vector: Bytes, kind: np.dtype[Any], block: int) -> Integers:
    """The ordered integers of a vector, remembered: it is looked at three times in a chain."""
    for known, ordered in _known():
        if known is vector and ordered.dtype == kind:
            return ordered
    bits = vector.view(kind)
    ordered, scratch = np.empty_like(bits), _buffers(1, kind, block)[0]
    for start in range(0, len(bits), block):
        part = slice(start, min(start + block, len(bits)))
        _order(bits[part], ordered[part], scratch[: part.stop - start])
    _remember(vector, ordered)
    return ordered


def _remember(vector: Bytes, ordered: Integers) -> None:
    known = _known()
    known.append((vector, ordered))
    del known[:-MEMORY]


def _known() -> list[tuple[Bytes, Integers]]:
    """Of this thread. A vector that was coded or decoded is not changed any more."""
    if not hasattr(_local, "known"):
        _local.known = []
    known: list[tuple[Bytes, Integers]] = _local.known
    return known


def _buffers(rows: int, dtype: np.dtype[Any], block: int = BLOCK) -> Integers:
    """Memory kept by the thread: fresh pages at every call would cost as much as the sums."""
    kept = getattr(_local, "kept", None)
    if kept is None:
        kept = _local.kept = np.empty(5 * BLOCK, np.int64)
    return kept.view(dtype)[: rows * block].reshape(rows, block)


def _order(bits: Integers, out: Integers, scratch: Integers) -> None:
    """Bits of floats <-> ordered integers: the map is its own inverse."""
    np.right_shift(bits, 8 * bits.itemsize - 1, out=scratch)
    scratch &= np.iinfo(bits.dtype).max
    np.bitwise_xor(bits, scratch, out=out)


def _is_float(dtype: str) -> bool:
    return "float" in dtype or dtype.startswith("complex")
