"""Checkpoints that other programs wrote: safetensors files with a step in their name.

    model_000100.safetensors, step-100.safetensors      the last number in the name is the step
    checkpoint-100/model.safetensors                    the folders of Hugging Face's Trainer

Losses and gradient norms come from the newest `trainer_state.json`, where there is one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import MappingProxyType

from ndt_offline.run.attempt import Entry, Problem
from ndt_offline.run.journal import number
from ndt_offline.run.layout import MAX_BYTES
from ndt_offline.run.regular import read_regular

_STEP = re.compile(r"(\d+)(?!.*\d)")
_FOLDER = re.compile(r"(?:checkpoint|step|global_step)[-_]?(\d+)$")
_NAMES = {"learning_rate": "lr"}  # their name -> ours
_FAULTS = (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError)
_KEPT = ("loss", "grad_norm", "learning_rate", "eval_loss")


def discover(folder: Path) -> tuple[list[Entry], list[Problem]]:
    """Entries by step, and what was found but could not be used."""
    found: dict[int, Path] = {}
    problems: list[Problem] = []
    for path in [
        *sorted(folder.glob("*.safetensors")),
        *sorted(folder.glob("*/model*.safetensors")),
    ]:
        step = _step(path, folder)
        if step is None:
            problems.append(Problem("no step in its name; left out", str(path)))
        elif step in found:
            what = f"has the same step as {found[step].name}; left out"
            problems.append(Problem(what, str(path), step, "give each step one file"))
        else:
            found[step] = path
    scalars = _log_history(folder, problems)
    entries = [
        Entry(step, 0, path, scalars=MappingProxyType(scalars.get(step, {})))
        for step, path in sorted(found.items())
    ]
    return entries, problems


def _step(path: Path, folder: Path) -> int | None:
    match = _STEP.search(path.stem) if path.parent == folder else _FOLDER.search(path.parent.name)
    step = int(match.group(1)) if match else None
    return step if step is not None and step < MAX_BYTES else None


def _log_history(folder: Path, problems: list[Problem]) -> dict[int, dict[str, float]]:
    states = list(folder.glob("*/trainer_state.json")) + list(folder.glob("trainer_state.json"))
    if not states:
        return {}
    newest = max(states, key=_time)
    scalars: dict[int, dict[str, float]] = {}
    try:
        for row in json.loads(read_regular(newest))["log_history"]:
            named = {_NAMES.get(key, key): number(row[key]) for key in _KEPT if key in row}
            scalars.setdefault(int(row["step"]), {}).update(named)
    except _FAULTS as error:
        problems.append(Problem(f"not readable: {error!r}; no losses from it", str(newest)))
    return scalars


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # a link that leads nowhere
        return 0
