"""One checkpoint in a pickle: weights and what else it says, read with `weights_only=True`.

torch's restricted unpickler runs nothing that is not on its list; a file that asks for more is
refused by name. State dicts are found where trainers put them, in other words by these keys.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.graph.models import plain_name
from ndt_offline.run.journal import is_step
from ndt_offline.storage.regular import opened

STATES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
STEPS = ("global_step", "step", "steps", "iteration", "iter", "iter_num", "num_updates")
EPOCH = "epoch"  # a step only where nothing else says one
SCALARS = {"loss": "loss", "train_loss": "loss", "val_loss": "val_loss", "lr": "lr"}
REMEDY = "save its state dict alone: torch.save(model.state_dict(), ...)"
_ASKED = re.compile(r"GLOBAL (\S+)")
PREFIX = "module."  # of DataParallel and DDP


@dataclass(frozen=True)
class Pickled:
    """{name: tensor} under plain names; step, epoch and scalars that stood beside it, if any."""

    state: dict[str, torch.Tensor]
    step: int | None = None
    scalars: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None


def read_pickled(path: Path, key: str | None = None) -> Pickled:
    """Raises RefusedError for what would run code, DamagedError for what cannot be read.

    key: where the state dict is, for a file that has it at an unusual place; `a.b` goes deeper.
    """
    body = _load(path)
    try:
        state = plain_state(_state(body, key))
    except NdtError as error:
        raise error.at(path=path) from None
    said = body if isinstance(body, Mapping) else {}
    whole = {name: int(said[name]) for name in (*STEPS, EPOCH) if is_step(_number(said.get(name)))}
    step = next((whole[name] for name in STEPS if name in whole), None)
    values = {ours: _number(said.get(name)) for name, ours in SCALARS.items() if name in said}
    scalars = {name: float(v) for name, v in values.items() if isinstance(v, int | float)}
    return Pickled(state, step, scalars, whole.get(EPOCH))


def plain_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without `_orig_mod.` of torch.compile and `module.` of DataParallel and DDP."""
    named = {plain_name(name): tensor for name, tensor in state.items()}
    while named and all(name.startswith(PREFIX) for name in named):
        named = {name.removeprefix(PREFIX): tensor for name, tensor in named.items()}
    return named


def _load(path: Path) -> Any:
    try:
        with opened(path) as (file, _), warnings.catch_warnings():  # a regular file, not a pipe
            warnings.simplefilter("ignore")
            # Not mapped: a training may write the file anew meanwhile.
            return torch.load(file, map_location="cpu", weights_only=True)
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    except MemoryError:
        raise DamagedError("larger than the memory", path=path) from None
    except Exception as error:  # a damaged file can raise anything
        asked = _ASKED.search(str(error))
        if asked or isinstance(error, pickle.UnpicklingError):
            named = asked.group(1)[:100].rstrip(".") if asked else "more than tensors"
            what = f"its pickle asks for {named}: not run (weights_only)"
            raise RefusedError(what, path=path, remedy=REMEDY) from None
        said = " ".join(str(error).split())[:120]
        what = f"is not readable as a checkpoint: {type(error).__name__}: {said}"
        raise DamagedError(what, path=path) from None


def _state(body: Any, key: str | None) -> dict[str, torch.Tensor]:
    for part in key.split(".") if key else ():
        body = body.get(part) if isinstance(body, Mapping) else None
    tables = [body] if key or not isinstance(body, Mapping) else [*map(body.get, STATES), body]
    for table in tables:
        found = _tensors(table)
        if found:
            return found
    keys = ", ".join(str(name)[:30] for name in list(body)[:8]) if isinstance(body, Mapping) else ""
    what = f"holds no state dict (keys: {keys})" if keys else "holds no state dict"
    raise RefusedError(what, remedy="--key NAME says where it is")


def _tensors(table: Any) -> dict[str, torch.Tensor]:
    if not isinstance(table, Mapping):
        return {}
    pairs = {name: value for name, value in table.items() if isinstance(value, torch.Tensor)}
    return pairs if all(isinstance(name, str) for name in pairs) else {}


def _number(value: Any) -> int | float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if plain else None
