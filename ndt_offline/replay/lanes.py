"""Layers of several checkpoints whose tridiagonal forms are solved together, if numba is there.

Only the last part of a spectrum waits, a few kilobytes a layer; everything before it is done
checkpoint by checkpoint as ever. The values are the same to the last bit.
"""

from __future__ import annotations

import numpy as np

from ndt_offline.replay.forward import Row
from ndt_offline.replay.solver import Solve, find_solver
from ndt_offline.replay.spectra import trusted
from ndt_offline.replay.tridiagonal import Form
from ndt_offline.run.prediction import fuse
from ndt_offline.store.schema import Space

ROWS = 16  # checkpoints that wait for each other at most


class Lanes:
    """Forms that wait, by side; solved when they fill the lanes, or when they are settled."""

    def __init__(self, solve: Solve) -> None:
        self._solve = solve
        self._waiting: dict[int, list[tuple[Form, Row, Space, int]]] = {}
        self._refused: set[tuple[str, int]] = set()
        self._lost: list[Row] = []

    def takes(self, space: Space, index: int) -> bool:
        """Not a layer that lost small values before: it would be measured twice each time."""
        return (space.name, index) not in self._refused

    def add(self, row: Row, space: Space, index: int, form: Form) -> None:
        waiting = self._waiting.setdefault(len(form.diagonal), [])
        waiting.append((form, row, space, index))
        if len(waiting) == ROWS:
            self._finish(len(form.diagonal))

    def settle(self) -> list[Row]:
        """Finish all that waits; the rows that must be measured again, without waiting."""
        for side in tuple(self._waiting):
            self._finish(side)
        lost, self._lost = self._lost, []
        return lost

    def _finish(self, side: int) -> None:
        waiting = self._waiting.pop(side)
        try:
            solved = self._solve([form for form, *_ in waiting])
        except MemoryError:
            solved = [None] * len(waiting)
        for (form, row, space, index), ascending in zip(waiting, solved, strict=True):
            values = None if ascending is None else trusted(ascending)
            if values is None:
                self._refused.add((space.name, index))
                self._lost.append(row)
            else:
                row.put(space, index, np.concatenate([values, np.zeros(form.zeros)]))


def make_lanes() -> Lanes | None:
    """None where there is no numba, or LAPACK here rounds otherwise."""
    solve = find_solver()
    if solve is None:
        return None
    fuse()  # numba is loaded: decoding may use it, too
    return Lanes(solve)
