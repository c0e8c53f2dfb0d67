"""The integers that a vector of bytes is predicted in, remembered from one checkpoint to the next.

*Ordered integers* of floats: their bits, the magnitude inverted where the sign is set, so that
neighbouring numbers are neighbouring integers. Integers are as they are; values on a grid (see
`grid`) are multiples of its step.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from ndt_offline.run.grid import Scales, to_grid
from ndt_offline.run.layout import ITEMSIZE, Bytes

Integers = npt.NDArray[Any]

_local = threading.local()
KEPT, MEMORY = 16 * 2**20, 4  # bytes of a vector whose integers are remembered; how many
BLOCK = 131_072  # elements at a time: large vectors stay in the cache


def width(dtype: str) -> int:
    """Bytes of the integers of a dtype; a complex number is two floats."""
    return ITEMSIZE[dtype] // (2 if dtype.startswith("complex") else 1)


def on_grid(vector: Bytes, dtype: str, scales: Scales) -> Integers:
    """A vector in steps of its grid, remembered."""
    found = _recalled(vector, np.dtype(f"i{width(dtype)}"), scales)
    if found is None:
        found = to_grid(vector, dtype, scales)
        if vector.nbytes <= KEPT:
            remember(vector, found, scales)
    return found


def ordered_of(vector: Bytes, kind: np.dtype[Any], block: int) -> Integers:
    """The ordered integers of a vector, remembered: it is looked at three times in a chain."""
    found = _recalled(vector, kind, None)
    if found is not None:
        return found
    bits = vector.view(kind)
    ordered, scratch = np.empty_like(bits), buffers(1, kind, block)[0]
    for start in range(0, len(bits), block):
        part = slice(start, min(start + block, len(bits)))
        order(bits[part], ordered[part], scratch[: part.stop - start])
    remember(vector, ordered, None)
    return ordered


def _recalled(vector: Bytes, kind: np.dtype[Any], scales: Scales | None) -> Integers | None:
    """The integers of a vector, if they are known: ordered, or in steps of this grid."""
    for known, integers, on in _known():
        if known is vector and integers.dtype == kind and on == scales:
            return integers
    return None


def remember(vector: Bytes, integers: Integers, scales: Scales | None) -> None:
    known = _known()
    known.append((vector, integers, scales))
    del known[:-MEMORY]


def _known() -> list[tuple[Bytes, Integers, Scales | None]]:
    """Of this thread. A vector that was coded or decoded is not changed any more."""
    if not hasattr(_local, "known"):
        _local.known = []
    known: list[tuple[Bytes, Integers, Scales | None]] = _local.known
    return known


def buffers(rows: int, dtype: np.dtype[Any], block: int = BLOCK) -> Integers:
    """Memory kept by the thread: fresh pages at every call would cost as much as the sums."""
    kept = getattr(_local, "kept", None)
    if kept is None:
        kept = _local.kept = np.empty(5 * BLOCK, np.int64)
    return kept.view(dtype)[: rows * block].reshape(rows, block)


def order(bits: Integers, out: Integers, scratch: Integers) -> None:
    """Bits of floats <-> ordered integers: the map is its own inverse."""
    np.right_shift(bits, 8 * bits.itemsize - 1, out=scratch)
    scratch &= np.iinfo(bits.dtype).max
    np.bitwise_xor(bits, scratch, out=out)


def is_float(dtype: str) -> bool:
    return "float" in dtype or dtype.startswith("complex")
