"""The probe sent through the graph with one checkpoint's weights, and the layers as they pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ndt_offline.graph.inputs import flatten
from ndt_offline.graph.matrices import layer_matrix
from ndt_offline.graph.widening import Widening, find_widening
from ndt_offline.replay.losses import loss_and_accuracy
from ndt_offline.replay.setup import Setup, load_graph_and_probe, probe_path
from ndt_offline.replay.spectra import RANK_FIRST
from ndt_offline.run.probe import Probe, load_second
from ndt_offline.run.reader import Run
from ndt_offline.storage.location import locate

State = Mapping[str, torch.Tensor]
KNOWN = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Factors:
    """A layer that widens is x W' + b: x [m, k], W [n, k], b [n] or None."""

    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None


Seen = Callable[[int, torch.Tensor, Factors | None], None]  # layer, its matrix, its factors


class Capture:
    """Graph and probes on one device, and where in the graph the chosen layers are.

    plain: keep every tensor in the usual order of memory, as `torch.func.vmap` needs it.
    """

    def __init__(
        self, run: Run, setup: Setup, device: str | torch.device = "cpu", plain: bool = False
    ) -> None:
        self._setup, self._plain = setup, plain
        path = probe_path(run, setup.parameters)
        config = locate(setup.config) if setup.config else None
        self.graph, first = load_graph_and_probe(locate(setup.run), setup.parameters, path, config)
        second, _ = load_second(path)  # why it is left out: the setup's notes
        self._probes = [self._ready(probe, device) for probe in (first, second) if probe]
        self._by_node: dict[str, list[int]] = {}
        self._factors: dict[int, Widening] = {}
        document = self.graph.document
        for index, layer in enumerate(setup.activations):
            self._by_node.setdefault(layer.node, []).append(index)
            found = find_widening(document, layer, RANK_FIRST)
            if found is not None:
                self._factors[index] = found
        named = {slot.name: slot.key for slot in document.inputs}
        sources = {found.source for found in self._factors.values()}
        self._given = {name: named[name] for name in sources & named.keys()}
        self._sources = sources - named.keys()

    def outputs(self, state: State, seen: Seen, all_probes: bool = True) -> list[torch.Tensor]:
        """The model's output for each probe; `seen` is told every layer of the first, uncentred.

        Raises NdtError where the weights do not fit the graph or an operation fails.
        """
        self.graph.check_state({name: tensor.shape for name, tensor in state.items()})
        inputs = self._probes[0][0]
        kept = {name: inputs[key] for name, key in self._given.items()}

        def visit(node: str, value: torch.Tensor) -> None:
            if node in self._sources:
                kept[node] = value
            for index in self._by_node.get(node, ()):
                matrix = self._matrix(value, self._rule(index))
                seen(index, wide(matrix, False), self._product(index, kept, state))

        nodes = self._by_node.keys() | self._sources
        outputs = [self.graph.run(state, inputs, visit=visit, nodes=nodes)]
        others = self._probes[1:] if all_probes else []
        return outputs + [self.graph.run(state, x, visit=None, nodes=()) for x, _ in others]

    def signals(self, outputs: Sequence[torch.Tensor]) -> Iterator[float]:
        """Loss and accuracy of each probe, one after the other.

        UsageError where targets do not fit, after what the probes before it gave.
        """
        for output, (_, targets) in zip(outputs, self._probes, strict=False):
            yield from loss_and_accuracy(self._setup.loss, output, targets)

    def _rule(self, index: int) -> str:
        return self._setup.activations[index].rule

    def _matrix(self, value: torch.Tensor, rule: str) -> torch.Tensor:
        return layer_matrix(value if self._plain else _by_memory(value, rule), rule)

    def _wide(self, matrix: torch.Tensor) -> torch.Tensor:
        return wide(matrix, self._setup.parameters.center)

    def _product(self, index: int, kept: State, state: State) -> Factors | None:
        found = self._factors.get(index)
        if found is None:
            return None
        center = self._setup.parameters.center  # the mean takes the bias along
        inputs = kept[found.source]
        weight = _named(state, found.weight)
        return Factors(
            self._wide(inputs.reshape(-1, inputs.shape[-1])),
            weight.t() if found.flipped else weight,
            _named(state, found.bias) if found.bias and not center else None,
        )

    def _ready(
        self, probe: Probe, device: str | torch.device
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """A probe's inputs by name, where and as the graph wants them, and its targets."""
        ready = {}
        for name, tensor in flatten(probe.inputs, self.graph.inputs).items():
            tensor = upcast(tensor) if self._setup.parameters.upcast else tensor
            # Convolution is a fifth faster with channels last, which what follows keeps.
            images = tensor.ndim == 4 and tensor.is_floating_point() and not self._plain
            form = torch.channels_last if images else torch.preserve_format
            ready[name] = tensor.to(device, memory_format=form)
        return ready, probe.targets


def wide(matrix: torch.Tensor, center: bool) -> torch.Tensor:
    """A matrix in float32 or float64, without the column means where that is asked."""
    matrix = matrix.detach() if matrix.dtype in KNOWN else matrix.float()
    return matrix - matrix.mean(0, keepdim=True, dtype=torch.float64) if center else matrix


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    low = tensor.is_floating_point() and tensor.dtype.itemsize < 4
    return tensor.float() if low else tensor


def _by_memory(value: torch.Tensor, rule: str) -> torch.Tensor:
    """A picture with its channels last read in that order: other columns, the same spectrum."""
    last = value.ndim == 4 and rule == "flatten" and not value.is_contiguous()
    last = last and value.is_contiguous(memory_format=torch.channels_last)
    return value.permute(0, 2, 3, 1) if last else value


def _named(state: State, names: Sequence[str]) -> Any:
    return next(state[name] for name in names if name in state)
