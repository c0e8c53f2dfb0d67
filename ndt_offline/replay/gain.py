"""What is gained when layers of several checkpoints are solved together, and when that pays."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from ndt_offline.replay.setup import Setup

SIDES = range(48, 1025)  # of layers that may wait: smaller ones are quick, larger ones all dsytrd
SAVED = 1e-8  # seconds per layer, times its side squared
LOADING = 0.6  # seconds per process: to import numba and load what it has compiled
COMPILING = 3.5  # more, the first time on a machine
MEMORY = 110 * 2**20  # bytes of a process, for numba and LLVM


def is_worth(setup: Setup, rows: int) -> bool:
    """Whether a process that replays that many rows ends sooner; without numba it does not."""
    sides = [layer.components for space in setup.spaces for layer in space.layers]
    saved = rows * SAVED * sum(float(side) ** 2 for side in sides if side in SIDES)
    cost = LOADING if is_compiled() else LOADING + COMPILING
    return saved > cost and find_spec("numba") is not None


def is_compiled() -> bool:
    """Whether numba has left its work beside the package; elsewhere it is not looked for."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    made = Path(__file__).parent.glob(f"__pycache__/lockstep.solve-*.{python}.nbi")
    return any(made)
