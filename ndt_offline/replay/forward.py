"""One checkpoint replayed: the probe through the graph, every layer reduced to its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from ndt_offline.errors import NdtError
from ndt_offline.replay.capture import Capture, Factors, State, upcast, wide
from ndt_offline.replay.product import product_values
from ndt_offline.replay.setup import Setup
from ndt_offline.replay.spectra import begin
from ndt_offline.replay.tridiagonal import Form
from ndt_offline.replay.workspace import Reduction, Workspace
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Run
from ndt_offline.run.tensors import to_torch
from ndt_offline.store.results import SPACES
from ndt_offline.store.schema import QUANTITIES, STATUS, Space

Watch = Callable[[int, Any], None]  # told the number of a layer and its matrix as it is


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

    def put(self, space: Space, index: int, values: np.ndarray | None) -> None:
        """A layer's singular values; None where the checkpoint has no such layer."""
        finite = values is not None and bool(np.isfinite(values).all())
        found = "absent" if values is None else "ok" if finite else "not_finite"
        self.status[space.name][index] = STATUS[found]
        if values is not None and finite:
            self.spectra[space.name][index, : len(values)] = values


class Waiting(Protocol):
    """Layers that wait to be solved together with those of other checkpoints."""

    def takes(self, space: Space, index: int) -> bool: ...
    def add(self, row: Row, space: Space, index: int, form: Form) -> None: ...


class Replayer:
    """Graph and probe, loaded once per process, and what to measure in every checkpoint.

    reduced: the spaces whose matrices are reduced to their spectra; others are only watched.
    reduction: what small matrices are reduced with, if not LAPACK.
    """

    size = 1  # checkpoints at once

    def __init__(
        self,
        run: Run,
        setup: Setup,
        reduced: frozenset[str] = frozenset(SPACES),
        reduction: Reduction | None = None,
    ) -> None:
        # One thread: more never helped here and can cost several times under load.
        torch.set_num_threads(1)
        self.setup, self._reduced = setup, reduced
        self._work = Workspace(reduction)
        self._capture = Capture(run, setup) if setup.activations else None
        self.graph = self._capture.graph if self._capture else None

    def measure(
        self, decoded: Decoded, watch: Watch | None = None, waiting: Waiting | None = None
    ) -> Row:
        """Spectra of weights and activations, probe loss and accuracy, of one checkpoint.

        A forward pass that fails is told in `.problem`; the weights are measured all the same.
        watch: also told every activation matrix, uncentred.
        waiting: takes layers that may wait for other checkpoints; it puts them into the row later.
        """
        row = Row.empty(self.setup.spaces)
        state = to_torch(decoded.layout, decoded.vectors)
        if self.setup.parameters.upcast:
            state = {name: upcast(tensor) for name, tensor in state.items()}
        self._weights(state, row, waiting)
        if self._capture is not None:
            try:
                self._activations(self._capture, state, row, watch, waiting)
            except (NdtError, RuntimeError) as error:
                row.problem = f"forward pass failed: {error}"
        return row

    def _weights(self, state: State, row: Row, waiting: Waiting | None) -> None:
        space = self.setup.spaces[1]
        for index in range(len(space.layers)):
            matrix = weight_matrix(state, space, index, self.setup.parameters.center)
            if matrix is None:
                row.put(space, index, None)
            else:
                self._put(row, space, index, (matrix, None), waiting)

    def _activations(
        self,
        capture: Capture,
        state: State,
        row: Row,
        watch: Watch | None,
        waiting: Waiting | None,
    ) -> None:
        space, reducing = self.setup.spaces[0], "activations" in self._reduced

        def seen(index: int, matrix: torch.Tensor, factors: Factors | None) -> None:
            expected = (space.layers[index].rows, space.layers[index].columns)
            fits = tuple(matrix.shape) == expected
            if watch is not None and fits:
                watch(index, matrix.numpy())
            if reducing and fits:
                plain = wide(matrix, self.setup.parameters.center)
                self._put(row, space, index, (plain, factors), waiting)
            elif reducing:
                row.put(space, index, None)

        with torch.inference_mode():
            # Who only watches looks at the first probe.
            outputs = capture.outputs(state, seen, all_probes=reducing)
            for place, value in enumerate(capture.signals(outputs)):
                row.probe[place] = value

    def _put(
        self,
        row: Row,
        space: Space,
        index: int,
        layer: tuple[torch.Tensor, Factors | None],
        waiting: Waiting | None,
    ) -> None:
        waits = waiting is not None and waiting.takes(space, index)
        found = self._values(*layer, waits)
        if waiting is not None and isinstance(found, Form):
            waiting.add(row, space, index, found)
        else:
            assert not isinstance(found, Form)
            row.put(space, index, found)

    def _values(
        self, matrix: torch.Tensor, factors: Factors | None, waits: bool = False
    ) -> np.ndarray | Form:
        found = None
        if factors is not None:
            bias = None if factors.bias is None else factors.bias.numpy()
            inputs, weight = factors.inputs.numpy(), factors.weight.numpy()
            found = product_values(matrix.numpy(), inputs, weight, bias, self._work)
        return begin(matrix.numpy(), self._work, waits) if found is None else found


def weight_matrix(state: State, space: Space, index: int, center: bool) -> torch.Tensor | None:
    """A weight as [out, rest]; None where it is missing or has another shape."""
    layer = space.layers[index]
    tensor = state.get(layer.name)
    matrix = None if tensor is None else tensor.reshape(tensor.shape[0], -1)
    if matrix is None or tuple(matrix.shape) != (layer.rows, layer.columns):
        return None
    return wide(matrix, center)
