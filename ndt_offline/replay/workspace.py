"""Float64 work arrays, made once and used again, and a matrix read through them in slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Reduction = Callable[[Array, Array, Array], None]  # see `householder.reduce`

ELEMENTS = 1 << 19  # of a slice in float64: 4 MB, which stays in the cache while it is used
SHORTEST = 512  # of a slice along the long side: shorter ones make BLAS slow


class Workspace:
    """Buffers by purpose; each grows to the largest that was asked for, and is then used again.

    A new large array costs page faults at every checkpoint, which is up to half of a small
    layer's time. Contents are whatever was left there. Not for two threads at once.
    reduction: what small matrices are reduced with, if not LAPACK.
    """

    def __init__(self, reduction: Reduction | None = None) -> None:
        self.reduction = reduction
        self._buffers: dict[str, Array] = {}

    def take(self, purpose: str, rows: int, columns: int, order: str = "C") -> Array:
        """An array [rows, columns] with undefined contents, valid until the next of its purpose."""
        count = rows * columns
        held = self._buffers.get(purpose)
        if held is None or held.size < count:
            self._buffers.pop(purpose, None)
            held = self._buffers[purpose] = np.empty(count)
        return held[:count].reshape((rows, columns), order="C" if order == "C" else "F")

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers.values())


def slices(matrix: Any, work: Workspace, power: float, tall: bool) -> Iterator[Array]:
    """Pieces of `power` times a matrix along its rows where it is `tall`, else its columns.

    Pieces are C-ordered, [piece, side] or [side, piece]; each is valid until the next. A long side
    of any length needs memory for one piece only.
    """
    rows, columns = matrix.shape
    side, long = (columns, rows) if tall else (rows, columns)
    step = max(SHORTEST, ELEMENTS // max(side, 1))
    for start in range(0, long, step):
        part = matrix[start : start + step] if tall else matrix[:, start : start + step]
        if power == 1.0 and part.dtype == np.float64 and part.flags.c_contiguous:
            yield part
            continue
        piece = work.take("slice", *part.shape)
        np.copyto(piece, part)
        if power != 1.0:
            piece *= power
        yield piece
