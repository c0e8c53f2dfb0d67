"""One checkpoint replayed: the probe through the graph, every layer reduced to its spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ndt_offline.errors import NdtError
from ndt_offline.graph.matrices import layer_matrix
from ndt_offline.replay.losses import loss_and_accuracy
from ndt_offline.replay.setup import Setup, load_graph_and_probe, probe_path
from ndt_offline.replay.spectra import singular_values
from ndt_offline.replay.workspace import Workspace
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.probe import Probe, load_probe
from ndt_offline.run.reader import Run
from ndt_offline.run.tensors import to_torch
from ndt_offline.storage.location import locate
from ndt_offline.store.schema import QUANTITIES, STATUS, Space

State = Mapping[str, torch.Tensor]


@dataclass
class Row:
    """What one checkpoint gives: per space, spectra [layer, component] and status [layer]."""

    spectra: dict[str, np.ndarray]
    status: dict[str, np.ndarray]
    probe: np.ndarray = field(default_factory=lambda: np.full(len(QUANTITIES), math.nan))
    problem: str = ""

    @classmethod
    def empty(cls, spaces: tuple[Space, ...]) -> Row:
        return cls(
            {s.name: np.full((len(s.layers), s.width), math.nan) for s in spaces},
            {s.name: np.zeros(len(s.layers), np.uint8) for s in spaces},
        )


class Replayer:
    """Graph and probe, loaded once per process, and what to measure in every checkpoint."""

    def __init__(self, run: Run, setup: Setup) -> None:
        # One thread: more never helped here and can cost several times under load.
        torch.set_num_threads(1)
        self.setup = setup
        self._work = Workspace()
        self.graph = None
        self._probes: list[Probe] = []
        if setup.activations:
            path = probe_path(run, setup.parameters)
            config = locate(setup.config) if setup.config else None
            self.graph, first = load_graph_and_probe(
                locate(setup.run), setup.parameters, path, config
            )
            second = load_probe(path, "_val")
            self._probes = [first, *([second] if second else [])]
        self._by_node: dict[str, list[int]] = {}
        for index, layer in enumerate(setup.activations):
            self._by_node.setdefault(layer.node, []).append(index)

    def measure(self, decoded: Decoded) -> Row:
        """Spectra of weights and activations, probe loss and accuracy, of one checkpoint.

        A forward pass that fails is told in `.problem`; the weights are measured all the same.
        """
        row = Row.empty(self.setup.spaces)
        state = to_torch(decoded.layout, decoded.vectors)
        if self.setup.parameters.upcast:
            state = {name: _upcast(tensor) for name, tensor in state.items()}
        self._weights(state, row)
        if self.graph is not None:
            try:
                self._activations(state, row)
            except (NdtError, RuntimeError) as error:
                row.problem = f"forward pass failed: {error}"
        return row

    def _weights(self, state: State, row: Row) -> None:
        space = self.setup.spaces[1]
        for index, layer in enumerate(space.layers):
            tensor = state.get(layer.name)
            matrix = None if tensor is None else tensor.reshape(tensor.shape[0], -1)
            self._put(row, space, index, matrix)

    def _activations(self, state: State, row: Row) -> None:
        assert self.graph is not None
        space = self.setup.spaces[0]
        self.graph.check_state({name: tensor.shape for name, tensor in state.items()})

        def visit(node: str, value: torch.Tensor) -> None:
            for index in self._by_node[node]:
                matrix = layer_matrix(value, self.setup.activations[index].rule)
                self._put(row, space, index, matrix)

        with torch.inference_mode():
            for number, probe in enumerate(self._probes):
                inputs = (
                    _upcast_inputs(probe.inputs) if self.setup.parameters.upcast else probe.inputs
                )
                nodes = set(self._by_node) if number == 0 else set()
                output = self.graph.run(state, inputs, visit=visit, nodes=nodes)
                signals = loss_and_accuracy(self.setup.loss, output, probe.targets)
                row.probe[2 * number : 2 * number + 2] = signals

    def _put(self, row: Row, space: Space, index: int, matrix: torch.Tensor | None) -> None:
        expected = (space.layers[index].rows, space.layers[index].columns)
        if matrix is None or tuple(matrix.shape) != expected:
            row.status[space.name][index] = STATUS["absent"]
            return
        values = singular_values(_numpy(matrix, self.setup.parameters.center), self._work)
        finite = bool(np.isfinite(values).all())
        row.status[space.name][index] = STATUS["ok" if finite else "not_finite"]
        if finite:
            row.spectra[space.name][index, : len(values)] = values


def _numpy(matrix: torch.Tensor, center: bool) -> np.ndarray:
    wide = matrix.detach() if matrix.dtype in (torch.float32, torch.float64) else matrix.float()
    if center:
        wide = wide - wide.mean(0, keepdim=True, dtype=torch.float64)
    return wide.numpy()


def _upcast(tensor: torch.Tensor) -> torch.Tensor:
    low = tensor.is_floating_point() and tensor.dtype.itemsize < 4
    return tensor.float() if low else tensor


def _upcast_inputs(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {key: _upcast(value) for key, value in inputs.items()}
    return tuple(map(_upcast, inputs)) if isinstance(inputs, tuple) else _upcast(inputs)
