"""What is gained by what numba compiles, and when that pays."""

from __future__ import annotations

from importlib.util import find_spec

from ndt_offline.replay.setup import Setup

COMPILED = "compiled"  # attribute of a store's root: whether it is used there
SIDES = range(48, 1025)  # of layers that may wait: smaller ones are quick, larger ones all dsytrd
SAVED = 1.5e-8  # seconds per layer, times its side squared
LOADING = 0.7  # seconds per process: to import numba and load what it has compiled


def is_worth(setup: Setup, rows: int) -> bool:
    """Whether a process that replays that many rows ends sooner; without numba it does not.

    What compiling takes, the first time on a machine, is not counted: who has numba wants it.
    """
    sides = [layer.components for space in setup.spaces for layer in space.layers]
    saved = rows * SAVED * sum(float(side) ** 2 for side in sides if side in SIDES)
    return saved > LOADING and find_spec("numba") is not None
