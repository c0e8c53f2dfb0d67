"""Several checkpoints replayed at once on a device: forward pass and Gram matrices there.

The weights of a batch are stacked and sent through the graph by `torch.func.vmap`, or one after
the other where an operation does not allow it. A batch has always the same size, so that a
checkpoint's numbers do not depend on what else was to be done.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ndt_offline.errors import NdtError
from ndt_offline.graph.costs import forward_bytes, forward_flops
from ndt_offline.replay import device as devices
from ndt_offline.replay.capture import Capture, Factors, State, upcast, wide
from ndt_offline.replay.forward import Row, weight_matrix
from ndt_offline.replay.grams import Parts, gram, layer_values, products
from ndt_offline.replay.setup import Setup
from ndt_offline.replay.spectra import singular_values
from ndt_offline.replay.stack import stack
from ndt_offline.replay.workspace import Array, Workspace
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Run
from ndt_offline.store.schema import Space

SHORT = "the device's memory does not hold one checkpoint; --device cpu, or a smaller probe"


@dataclass
class _Reduced:
    """What leaves the device: per layer its Gram matrix or products, and the model's outputs."""

    parts: dict[int, Parts] = field(default_factory=dict)
    outputs: list[torch.Tensor] = field(default_factory=list)


class BatchReplayer:
    """Does what `Replayer` does, for `size` checkpoints at once, on any device of torch."""

    def __init__(self, run: Run, setup: Setup, device: str, size: int | None = None) -> None:
        torch.set_num_threads(1)
        self.setup, self.device = setup, torch.device(device)
        self._work, self._center = Workspace(), setup.parameters.center
        self._capture = Capture(run, setup, self.device, plain=True) if setup.activations else None
        self.graph = self._capture.graph if self._capture else None
        self.size = size if size is not None else self._planned()
        self._together = self.size > 1 and self._works_together()

    def measure(self, decoded: Decoded) -> Row:
        """One checkpoint, in the first place of a batch."""
        (row,) = self.measure_many([decoded, *[None] * (self.size - 1)])[:1]
        assert row is not None
        return row

    def measure_many(self, decoded: Sequence[Decoded | None]) -> list[Row | None]:
        """Rows of a batch of `size` places, of which some are empty.

        Where the device's memory is full, the batch is halved until one is left; MemoryError then.
        """
        full = [one for one in decoded if one is not None]
        if len({one.layout.key for one in full}) > 1:  # written by others: tables may change
            return [self._alone(one) if one is not None else None for one in decoded]
        try:
            with devices.exact_products(), torch.no_grad():
                return self._rows(decoded)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_short_of_memory(error):
                raise
        devices.free_cache(self.device)
        if len(decoded) == 1:
            raise MemoryError(SHORT)
        half = len(decoded) // 2
        return self._part(decoded[:half]) + self._part(decoded[half:])

    def _part(self, decoded: Sequence[Decoded | None]) -> list[Row | None]:
        return self.measure_many(decoded) if any(decoded) else [None] * len(decoded)

    def _alone(self, one: Decoded) -> Row | None:
        return self.measure_many([one])[0]

    def _rows(self, decoded: Sequence[Decoded | None]) -> list[Row | None]:
        state = stack(decoded, self.device)
        if self.setup.parameters.upcast:
            state = {name: upcast(tensor) for name, tensor in state.items()}
        rows = [None if one is None else Row.empty(self.setup.spaces) for one in decoded]
        first, second = self.setup.spaces
        if second.layers:
            self._fill(rows, self._each(self._reduce_weights, state, len(rows)), state, second)
        if self._capture is not None:
            self._fill(rows, self._forward(state, rows), state, first)
        return rows

    def _forward(self, state: State, rows: Sequence[Row | None]) -> Sequence[_Reduced | None]:
        """Each checkpoint's layers and outputs; why there are none is told in its row."""
        if self._together:
            try:
                return self._each(self._reduce_forward, state, len(rows))
            except (NdtError, RuntimeError) as error:
                if devices.is_short_of_memory(error):
                    raise
        found: list[_Reduced | None] = []
        for index, row in enumerate(rows):
            found.append(None)
            if row is None:
                continue
            try:
                found[-1] = self._reduce_forward(_one(state, index))
            except (NdtError, RuntimeError) as error:
                if devices.is_short_of_memory(error):
                    raise
                row.problem = f"forward pass failed: {error}"
        return found

    def _each(
        self, reduce: Callable[[State], _Reduced], state: State, count: int
    ) -> list[_Reduced]:
        """`reduce` for every checkpoint of a stacked state, at once where there are several."""
        if count == 1:
            return [reduce(_one(state, 0))]
        keys: list[int] = []

        def flat(one: State) -> tuple[list[Any], list[torch.Tensor]]:
            found = reduce(one)
            keys[:] = found.parts
            return list(found.parts.values()), found.outputs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # operations that it does one after the other
            parts, outputs = torch.func.vmap(flat)(dict(state))
        return [
            _Reduced(
                {key: tuple(p[i] for p in part) for key, part in zip(keys, parts, strict=True)},
                [output[i] for output in outputs],
            )
            for i in range(count)
        ]

    def _reduce_weights(self, state: State) -> _Reduced:
        found, space = _Reduced(), self.setup.spaces[1]
        for index in range(len(space.layers)):
            matrix = weight_matrix(state, space, index, self._center)
            if matrix is not None:
                found.parts[index] = (gram(matrix),)
        return found

    def _reduce_forward(self, state: State) -> _Reduced:
        assert self._capture is not None
        found, space = _Reduced(), self.setup.spaces[0]

        def seen(index: int, matrix: torch.Tensor, factors: Factors | None) -> None:
            if tuple(matrix.shape) == (space.layers[index].rows, space.layers[index].columns):
                matrix = wide(matrix, self._center)
                parts = (gram(matrix),) if factors is None else products(matrix, factors)
                found.parts[index] = parts

        found.outputs = self._capture.outputs(state, seen)
        return found

    def _fill(
        self,
        rows: Sequence[Row | None],
        reduced: Sequence[_Reduced | None],
        state: State,
        space: Space,
    ) -> None:
        """Put the layers of one space, and what the outputs say, into the rows."""
        wanted = [(i, one) for i, one in enumerate(reduced) if one is not None and rows[i]]
        counts = [layer.components for layer in space.layers]
        values = layer_values([one.parts for _, one in wanted], counts, self._work)
        for (index, one), found in zip(wanted, values, strict=True):
            row = rows[index]
            assert row is not None
            lost = {layer for layer, known in found.items() if known is None}
            if lost:
                found |= self._again(_one(state, index), space, lost)
            for layer in range(len(space.layers)):
                row.put(space, layer, found.get(layer))
            if one.outputs and self._capture is not None:
                outputs = [output.cpu() for output in one.outputs]
                for place, value in enumerate(self._capture.signals(outputs)):
                    row.probe[place] = value

    def _again(self, state: State, space: Space, lost: set[int]) -> dict[int, Array | None]:
        """Layers whose Gram matrix does not tell their small values: from the matrix, here."""
        found: dict[int, Array | None] = {}

        def seen(index: int, matrix: torch.Tensor | None, factors: Factors | None) -> None:
            if index in lost and matrix is not None:
                plain = wide(matrix, self._center).cpu().numpy()
                found[index] = singular_values(plain, self._work)

        if space is self.setup.spaces[0] and self._capture is not None:
            self._capture.outputs(state, seen)
        else:
            for index in lost:
                seen(index, weight_matrix(state, space, index, False), None)
        return found

    def _planned(self) -> int:
        layers = [layer for space in self.setup.spaces for layer in space.layers]
        each = sum(16.0 * x.components**2 + 8.0 * x.rows * x.columns for x in layers)
        if self.graph is not None:
            each += forward_bytes(self.graph)
        flops = forward_flops(self.graph) if self.graph is not None else 0.0
        return devices.batch_size(each, flops, devices.device_memory(self.device))

    def _works_together(self) -> bool:
        """Whether vmap can do the graph's operations: tried with zeros, so that no data decides."""
        if self.graph is None:
            return True
        state = {
            name: torch.zeros((2, *value.shape), dtype=getattr(torch, value.dtype))
            for name, value in self.graph.parameters.items()
        }
        try:
            with devices.exact_products(), torch.no_grad():
                there = {name: tensor.to(self.device) for name, tensor in state.items()}
                self._each(self._reduce_forward, there, 2)
        except (NdtError, RuntimeError) as error:
            return devices.is_short_of_memory(error)
        return True


def _one(state: State, index: int) -> dict[str, torch.Tensor]:
    return {name: tensor[index] for name, tensor in state.items()}
