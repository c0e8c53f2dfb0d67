"""What is gained when layers of several checkpoints are solved together, and when that pays."""

from __future__ import annotations

from importlib.util import find_spec

from ndt_offline.replay.setup import Setup

SIDES = range(48, 1025)  # of layers that may wait: smaller ones are quick, larger ones all dsytrd
SAVED = 1e-8  # seconds per layer, times its side squared
COST = 1.0  # seconds per process: to import numba and load what it has compiled; once, 3 more
MEMORY = 110 * 2**20  # bytes of a process, for numba and LLVM


def is_worth(setup: Setup, rows: int) -> bool:
    """Whether a process that replays that many rows ends sooner; without numba it does not."""
    sides = [layer.components for space in setup.spaces for layer in space.layers]
    saved = SAVED * sum(float(side) ** 2 for side in sides if side in SIDES)
    return saved * rows > COST and find_spec("numba") is not None
