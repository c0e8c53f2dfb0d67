"""What a recording writes once: probe, graph, the attempt's description; what it checks first."""

from __future__ import annotations

import math
import operator
import os
import platform
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ndt_offline
from ndt_offline.errors import UsageError
from ndt_offline.graph import Graph, export_graph, load_graph
from ndt_offline.run import durable
from ndt_offline.run.journal import MAX_STEP
from ndt_offline.run.probe import IGNORED, Probe, load_probe, load_second, probe_bytes, unlike
from ndt_offline.storage.location import local
from ndt_offline.storage.regular import read_regular

LOSSES = ("cross_entropy", "nll", "mse", "l1", "bce_with_logits", "none")

LONG = 5.0  # seconds of tracing a model after which it is said

Warn = Callable[[str, str], None]  # what, remedy


def whole(name: str, value: Any, least: int = 0) -> int:
    """An argument that counts, as an int: of Python, numpy or torch; UsageError for any other."""
    try:
        number = operator.index(value)
    except Exception:  # a tensor of two elements has its own opinion
        kind = type(value).__name__
        raise UsageError(f"{name} is {kind}, expected a whole number", remedy="int(...)") from None
    if not least <= number < MAX_STEP:  # not named: Python refuses to print a very long one
        raise UsageError(f"{name}: expected a whole number from {least} to 2^46 - 1")
    return number


def check_labels(
    loss: str, graph: Graph | None, probes: tuple[Probe | None, ...], warn: Warn
) -> None:
    """Warn of labels that cannot belong to the model's output: the analysis would have no loss."""
    if loss == "none" or graph is None:
        return
    shape = tuple(graph.output.shape)
    for probe in probes:
        labels = None if probe is None else probe.targets
        if labels is None or labels.is_complex():
            continue
        if why := _misfit(loss, shape, labels):
            warn(
                f"the probe's labels do not fit the model's output {list(shape)} "
                f"and loss={loss!r}: {why}",
                _remedy(loss, shape, labels),
            )


def _misfit(loss: str, shape: tuple[int, ...], labels: torch.Tensor) -> str:
    given = tuple(labels.shape)
    if loss not in ("cross_entropy", "nll"):
        return "" if labels.numel() == math.prod(shape) else f"their shape is {list(given)}"
    if labels.is_floating_point():  # shares of classes
        fits = given == shape and len(shape) > 1 and shape[1] > 1
        return "" if fits else f"they are no classes, but {_kind(labels)}"
    if len(shape) != len(given) + 1 or given not in (shape[:-1], shape[:1] + shape[2:]):
        return f"their shape is {list(given)}"
    # As the replay reads it: classes last where that fits, else second.
    classes = shape[-1] if given == shape[:-1] else shape[1]
    counted = labels[labels != IGNORED]
    if not counted.numel() or 0 <= int(counted.min()) <= int(counted.max()) < classes:
        return ""
    return f"{int(counted.min())} to {int(counted.max())} for {classes} classes"


def absolute(path: Any) -> Path:
    """Where to record, whatever directory the training changes to."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    if not text or "\0" in text:
        raise UsageError(f"path={str(path)[:80]!r}: expected the name of a directory")
    return Path(os.path.abspath(local(path, "recording")))


def _remedy(loss: str, shape: tuple[int, ...], labels: torch.Tensor) -> str:
    if loss not in ("cross_entropy", "nll"):
        return "pass probe=(x, y) with y of the output's shape, or loss='none'"
    if labels.is_floating_point():
        return "name the loss: loss='mse' (or 'l1', 'bce_with_logits', 'none')"
    if labels.numel() == math.prod(shape):
        return "name the loss: loss='bce_with_logits' (or 'mse', 'l1', 'none')"
    return "pass probe=(x, y) with one class index per row, or loss='none'"


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


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
    # torch's decompositions take time that grows with the square of the number of parameters.
    patience = threading.Timer(LONG, _tell_of_tracing, [sum(1 for _ in model.parameters())])
    patience.daemon = True
    patience.start()
    try:
        return export_graph(model, probe.inputs, output=output)
    except Exception as error:
        warn(
            f"the model cannot be exported, so its forward graph is not recorded: {error}",
            "analyse with: ndt-analyze RUN --model package.module:factory",
        )
        return None
    finally:
        patience.cancel()
        patience.join()


def _tell_of_tracing(parameters: int) -> None:
    print(
        f"ndt-offline: the forward pass is being traced, once; with {parameters} parameters that "
        "takes long (without probe= it is not done)",
        file=sys.stderr,
    )


def second_probe(probe: Probe | None, second: Probe | None, warn: Warn) -> Probe | None:
    """The second probe, or None with a warning where the analysis could not use it."""
    if second is None:
        return None
    if probe is None:
        warn("val_probe without probe is not recorded", "pass it as probe=, or both")
        return None
    if not (why := unlike(probe, second)):
        return second
    warn(
        f"val_probe is not recorded: {why}; the forward graph takes one shape",
        f"pass as many rows as in probe ({probe.rows}), of the same names, shapes and dtypes",
    )
    return None


def keep(run: Path, probe: Probe | None, second: Probe | None, graph: Graph | None) -> None:
    """Write probe and graph; a run has one of each, another one is another run."""
    remedy = "record into another directory, or pass the same model and probe"
    kept = run / "probe.safetensors"
    if probe and kept.exists() and read_regular(kept) != probe_bytes(probe, second or _odd(kept)):
        raise UsageError("the run was recorded with another probe", path=kept, remedy=remedy)
    recorded = run / "graph.json"
    if graph and recorded.exists() and load_graph(run).fingerprint != graph.fingerprint:
        raise UsageError("the run was recorded with another model", path=recorded, remedy=remedy)
    if probe and not kept.exists():
        durable.write(kept, [probe_bytes(probe, second)])
    if graph and not recorded.exists():
        graph.save(run)


def _odd(kept: Path) -> Probe | None:
    """A second probe that was kept though the analysis leaves it out."""
    return load_probe(kept, "_val") if load_second(kept)[1] else None


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
