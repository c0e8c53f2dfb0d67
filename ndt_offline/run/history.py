"""Losses, gradient norms and learning rates that Hugging Face's Trainer logged.

`trainer_state.json` lies in every checkpoint's folder, each with the whole history before it: the
newest readable one is taken. A value counts at a checkpoint's step only where it was logged there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ndt_offline.run.attempt import Problem
from ndt_offline.run.journal import is_step, number
from ndt_offline.storage.regular import read_regular

STATE = "trainer_state.json"
MAX_STATE, MAX_SCALARS = 2**28, 50
_NAMES = {"learning_rate": "lr"}  # their name -> ours
_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
_KEPT = ("loss", "grad_norm", "learning_rate")
_TIMES = ("runtime", "per_second")  # of an evaluation, not of the model


def read_history(folders: Iterable[Path], problems: list[Problem]) -> dict[int, dict[str, float]]:
    """{step: {name: value}} of the first readable state; `folders` come newest first."""
    for folder in folders:
        path = folder / STATE
        try:
            return _scalars(json.loads(read_regular(path, MAX_STATE)))
        except FileNotFoundError:
            continue
        except _FAULTS as error:
            problems.append(Problem(f"not readable: {_why(error)}; no losses from it", str(path)))
    return {}


def _scalars(state: Any) -> dict[int, dict[str, float]]:
    scalars: dict[int, dict[str, float]] = {}
    names: dict[str, None] = {}
    for row in state["log_history"]:
        step = row["step"]
        if not is_step(step):
            raise ValueError(f"step {str(step)[:40]} is no step")
        for key, value in row.items():
            if _kept(key) and (key in names or len(names) < MAX_SCALARS):
                names[key] = None
                scalars.setdefault(step, {})[_NAMES.get(key, key)] = number(value)
    return scalars


def _kept(key: str) -> bool:
    return key in _KEPT or (key.startswith("eval_") and not key.endswith(_TIMES))


def _why(error: Exception) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else repr(error)[:200]
