"""Where the samples of a batch lie in each value of a graph, found by trial.

A graph knows fixed sizes only: nothing in it says which axis is the batch, whether tokens have been
laid beside samples, or sequences put first. So random weights are run on the batch, and on the same
batch with its samples moved on by one; where a value has moved the same way, there its samples are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ndt_offline.errors import RefusedError
from ndt_offline.graph.program import Graph

# Equal but for rounding, as shares of the largest entry.
_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3}
_CLOSE_HALF = 5e-2

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A tensor's samples lie along `axis`; the entries of one lie `together`, or n apart."""

    axis: int
    together: bool

    def split(self, value: Tensor, samples: int) -> Tensor:
        """[samples, ...]: a view, each part as if its sample had been alone in the batch."""
        size = value.shape[self.axis] // samples
        sizes = (samples, size) if self.together else (size, samples)
        return value.unflatten(self.axis, sizes).movedim(self._place, 0)

    def join(self, parts: Tensor) -> Tensor:
        """The inverse of `split`."""
        return parts.movedim(0, self._place).flatten(self.axis, self.axis + 1)

    @property
    def _place(self) -> int:
        return self.axis if self.together else self.axis + 1


@dataclass(frozen=True)
class Trial:
    """Values of one forward pass with random weights, and where their samples lie, if known."""

    samples: int
    values: Mapping[str, Tensor]
    layouts: dict[str, Layout]


def run_trial(
    graph: Graph,
    state: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    samples: int,
    wanted: Collection[str],
    shared: Collection[str],
) -> Trial:
    """A trial of the values in `wanted`; `shared` ones hold no samples.

    RefusedError where one sample's output changes with the others: batch statistics.
    """
    with torch.no_grad():
        random = torch.Generator().manual_seed(0)
        weights = _weights(graph, state, random)
        first = {name: _noise(value, random) for name, value in inputs.items()}
        values = _watched(graph, weights, first, wanted)
        moved = _watched(graph, weights, _each(first, samples, _on), wanted)
        layouts = {}
        for name in values.keys() - set(shared):
            found = _layout(values[name], moved[name], samples)
            if found is not None:
                layouts[name] = found
        end = graph.document.output
        _check_independent(graph, weights, first, values[end], layouts.get(end))
    return Trial(samples, values, layouts)


def close(part: Tensor, whole: Tensor) -> bool:
    """Whether two tensors of one shape are equal but for rounding."""
    if not whole.is_floating_point():
        return bool((part == whole).all())
    scale = whole.abs().max()
    share = _CLOSE.get(whole.dtype, _CLOSE_HALF)
    return bool((part - whole).abs().max() <= share * scale)


def _layout(value: Tensor, moved: Tensor, samples: int) -> Layout | None:
    for axis, size in enumerate(value.shape):
        if size % samples:
            continue
        for layout in (Layout(axis, True), Layout(axis, False)):
            if close(layout.split(moved, samples), _on(layout.split(value, samples))):
                return layout
            if size == samples:
                break
    return None


def _on(value: Tensor) -> Tensor:
    return value.roll(1, 0)


def _watched(graph: Graph, weights: Values, inputs: Values, wanted: Collection[str]) -> Values:
    """The wanted values: inputs, parameters and constants among them."""
    values: Values = graph.bind(weights, inputs)
    nodes = set(wanted) - values.keys()
    graph.run(weights, inputs, visit=values.__setitem__, nodes=nodes)
    return {name: value for name, value in values.items() if name in wanted}


def _weights(graph: Graph, state: Mapping[str, Tensor], random: torch.Generator) -> Values:
    """Random parameters, of a size that keeps values ordinary; buffers as they are."""
    weights = dict(state)
    for slot in graph.document.parameters:
        present = next((n for n in (slot.key, *slot.aliases) if n in state), slot.key)
        if slot.buffer or not slot.value.floating or present not in state:
            continue
        held = state[present]
        fan = max(held[0].numel(), 1) if held.ndim > 1 else 4
        noise = torch.randn(held.shape, generator=random) / fan**0.5
        weights[present] = noise.to(held.dtype).to(held.device)
    return weights


def _noise(value: Tensor, random: torch.Generator) -> Tensor:
    """Random numbers for floating inputs, so that no two samples are equal."""
    if not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=random).to(value.dtype).to(value.device)


def _each(inputs: Values, samples: int, change: Callable[[Tensor], Tensor]) -> Values:
    """The inputs that hold samples, changed."""
    holds = {n: v.ndim > 0 and v.shape[0] == samples for n, v in inputs.items()}
    return {name: change(v) if holds[name] else v for name, v in inputs.items()}


def _check_independent(
    graph: Graph, weights: Values, inputs: Values, output: Tensor, layout: Layout | None
) -> None:
    """The first sample's output must be its own: not change when all the others do."""
    if layout is None or layout.axis != 0 or not layout.together:
        raise RefusedError("the output's first axis does not hold the samples of the probe")
    samples = len(next(iter(inputs.values())))

    def alike(value: Tensor) -> Tensor:
        return value[:1].expand_as(value).contiguous()

    other = graph.run(weights, _each(inputs, samples, alike), nodes=())
    if not close(layout.split(other, samples)[0], layout.split(output, samples)[0]):
        raise RefusedError(
            "the samples of a batch depend on each other (batch statistics?): there is no gradient "
            "of a single one"
        )
