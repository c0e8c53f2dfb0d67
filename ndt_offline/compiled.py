"""Functions that numba compiles; importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """`function` in machine code, kept on disk where there is a folder for it."""
    try:
        return njit(error_model="numpy", cache=True)(function)
    except RuntimeError:  # there is no folder that it may write to
        return njit(error_model="numpy")(function)
