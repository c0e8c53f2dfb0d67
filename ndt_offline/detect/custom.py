"""A user's own detector, named as package.module:function on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ndt_offline.detect.transition import Array, Steps, Transition
from ndt_offline.errors import UsageError
from ndt_offline.extension import load_extension, told

FORM = "package.module:function, a function (values [n], steps [n]) -> indices"


def load_rule(name: str) -> Callable[..., list[Transition]]:
    """The rule behind `package.module:function`: its indices as transitions."""
    function = load_extension("detector", name, FORM)
    if not callable(function):
        module_name, _, function_name = name.partition(":")
        raise UsageError(f"detector {name!r}: {module_name!r} has no function {function_name!r}")

    def rule(values: Array, steps: Steps, **params: Any) -> list[Transition]:
        try:
            answer = function(values, steps, **params)
        except Exception as error:
            raise UsageError(f"detector {name!r} failed: {told(error)}") from error
        return as_transitions(name, answer, values, steps)

    return rule


def as_transitions(name: str, answer: Any, values: Array, steps: Steps) -> list[Transition]:
    """Indices, checked and in order, as transitions; size is the difference to the point before."""
    try:
        given = np.asarray(list(answer))
    except TypeError as error:
        raise UsageError(f"detector {name!r} returned no list of indices") from error
    if len(given) == 0:
        return []
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise UsageError(f"detector {name!r} returned no list of whole numbers: {FORM}")
    index = np.unique(given.astype(np.int64))
    if index[0] < 0 or index[-1] >= len(values):
        raise UsageError(
            f"detector {name!r} returned index {index[0] if index[0] < 0 else index[-1]} "
            f"for {len(values)} points",
            remedy="return positions in `values`, not training steps",
        )
    sizes = values[index] - values[np.maximum(index - 1, 0)]
    return [
        Transition(i, steps[i].item(), size)
        for i, size in zip(index.tolist(), sizes.tolist(), strict=True)
    ]
