"""What a recording writes once: probe, graph, the attempt's description; what it checks first."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ndt_offline
from ndt_offline.errors import UsageError
from ndt_offline.graph import Graph, export_graph, load_graph
from ndt_offline.run import durable
from ndt_offline.run.probe import Probe, probe_bytes

LOSSES = ("cross_entropy", "nll", "mse", "l1", "bce_with_logits", "none")

Warn = Callable[[str, str], None]  # what, remedy


def loss_name(loss: str | Callable[..., Any], warn: Warn) -> str:
    """The name under which the replay knows the loss."""
    if callable(loss):
        warn("a callable loss cannot be replayed; recorded as 'none'", f"use one of {LOSSES}")
        return "none"
    if loss not in LOSSES:
        raise UsageError(f"loss={loss!r}: expected one of {', '.join(LOSSES)}")
    return loss


def export(
    model: nn.Module, probe: Probe | None, output: str | int | None, warn: Warn
) -> Graph | None:
    """The forward graph on the probe's shape, or None with a warning that says what it costs."""
    if probe is None:
        warn("no probe: only weights can be analysed", "pass probe=(x, y)")
        return None
    try:
        return export_graph(model, probe.inputs, output=output)
    except Exception as error:
        warn(
            f"the model cannot be exported, so its forward graph is not recorded: {error}",
            "analyse with: ndt-analyze RUN --model package.module:factory",
        )
        return None


def keep(run: Path, probe: Probe | None, second: Probe | None, graph: Graph | None) -> None:
    """Write probe and graph; a run has one of each, another one is another run."""
    remedy = "record into another directory, or pass the same model and probe"
    kept = run / "probe.safetensors"
    if probe and kept.exists() and kept.read_bytes() != probe_bytes(probe, second):
        raise UsageError("the run was recorded with another probe", path=kept, remedy=remedy)
    recorded = run / "graph.json"
    if graph and recorded.exists() and load_graph(run).fingerprint != graph.fingerprint:
        raise UsageError("the run was recorded with another model", path=recorded, remedy=remedy)
    if probe and not kept.exists():
        durable.write(kept, [probe_bytes(probe, second)])
    if graph and not recorded.exists():
        graph.save(run)


def about(
    start_step: int, every: int, loss: str, precision: str | None, graph: Graph | None
) -> dict[str, Any]:
    """The attempt's description, for its attempt.json."""
    return {
        "start_step": start_step,
        "every": every,
        "loss": loss,
        "precision": precision,
        "graph": graph.fingerprint if graph else None,
        "difference": graph.difference if graph else None,
        "versions": {
            "ndt_offline": ndt_offline.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
