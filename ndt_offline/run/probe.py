"""The probe: the fixed labelled batch that every checkpoint is asked about.

x, y            one input tensor and its targets
x.0, x.1, y     a tuple of inputs
x.input_ids, y  a dictionary of inputs
x_val, y_val    the same for a second batch, from validation data
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save

from ndt_offline.errors import DamagedError, NdtError, UsageError
from ndt_offline.run import checkpoint, container
from ndt_offline.run.tensors import to_torch
from ndt_offline.storage.regular import read_regular

IGNORED = -100  # a label that no loss counts
Inputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """Inputs as the model takes them, and targets where there are any."""

    inputs: Inputs
    targets: torch.Tensor | None

    @property
    def rows(self) -> int:
        first = self.inputs
        if isinstance(first, dict):
            first = next(iter(first.values()))
        elif isinstance(first, tuple):
            first = first[0]
        return len(first)


def make_probe(given: Any) -> Probe:
    """From what a user passes: `(x, y)`, `(x, None)`; x a tensor, tuple or dictionary."""
    if isinstance(given, Probe):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UsageError(f"probe is {type(given).__name__}, expected a pair (x, y)")
    x, y = given
    tensors = (
        list(x.values()) if isinstance(x, Mapping) else x if isinstance(x, tuple | list) else [x]
    )
    tensors = [*tensors, *([] if y is None else [y])]
    if not tensors or any(not isinstance(t, torch.Tensor) for t in tensors):
        raise UsageError("probe: x is a tensor, a tuple or a dictionary of tensors; y a tensor")
    if isinstance(x, Mapping):
        inputs: Inputs = {str(key): _plain(value) for key, value in x.items()}
    else:
        inputs = _plain(x) if isinstance(x, torch.Tensor) else tuple(_plain(t) for t in x)
    return Probe(inputs, None if y is None else _plain(y))


def probe_bytes(probe: Probe, second: Probe | None = None) -> bytes:
    """The file of a probe; equal probes give equal bytes."""
    named = _named(probe, "")
    return save(named | (_named(second, "_val") if second else {}))


def load_probe(path: Path, suffix: str = "") -> Probe | None:
    """The probe (suffix `_val`: the second one), or None where the file holds none."""
    try:
        layout, vectors = checkpoint.plain(container.parse(read_regular(path)))
        named = to_torch(layout, vectors)
    except OSError as error:
        raise DamagedError(f"the probe cannot be read: {error.strerror}", path=path) from None
    except NdtError as error:
        raise error.at(path=path) from None
    x, y = f"x{suffix}", f"y{suffix}"
    parts = {key[len(x) + 1 :]: value for key, value in named.items() if key.startswith(f"{x}.")}
    targets = named.get(y)
    if x in named:
        return Probe(named[x], targets)
    if parts and all(key.isdecimal() for key in parts):
        return Probe(tuple(parts[key] for key in sorted(parts, key=int)), targets)
    return Probe(parts, targets) if parts else None


def load_second(path: Path) -> tuple[Probe | None, str]:
    """The second probe; None where there is none, or, with the reason, where it is left out."""
    first, second = load_probe(path), load_probe(path, "_val")
    why = unlike(first, second) if first and second else ""
    return (None, why) if why else (second, "")


def unlike(first: Probe, second: Probe) -> str:
    """Why the second probe cannot go through the graph of the first, which has fixed shapes."""
    need, have = _kinds(first), _kinds(second)
    if have.keys() != need.keys():
        return f"it holds {', '.join(have)}, the first one {', '.join(need)}"
    for name, kind in have.items():
        if kind != need[name]:
            return f"its {name} is {kind}, that of the first is {need[name]}"
    return ""


def _kinds(probe: Probe) -> dict[str, str]:
    return {
        name: f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        for name, tensor in _inputs(probe, "x").items()
    }


def _named(probe: Probe, suffix: str) -> dict[str, torch.Tensor]:
    named = _inputs(probe, f"x{suffix}")
    return named if probe.targets is None else named | {f"y{suffix}": probe.targets}


def _inputs(probe: Probe, x: str) -> dict[str, torch.Tensor]:
    if isinstance(probe.inputs, torch.Tensor):
        return {x: probe.inputs}
    if isinstance(probe.inputs, tuple):
        return {f"{x}.{i}": tensor for i, tensor in enumerate(probe.inputs)}
    return {f"{x}.{key}": tensor for key, tensor in probe.inputs.items()}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    # A copy of its own: two views of one storage cannot be saved, and the caller may reuse his.
    return tensor.detach().to("cpu", copy=True).contiguous()
