"""Gradients of single samples of the probe, summed up: what `measure.noise_scale` works on.

For the weights of one checkpoint, sample i of n with loss l_i (mean of l_i = the probe's loss), a
parameter w, g_i = d l_i / d w and m = (1/n) sum g_i:

    squared [n]  |g_i|^2       along [n]  g_i . m       direction  |sum of g_i / |g_i||^2

One backward pass through the recorded graph gives m and the gradient of each l_i with respect to
what every layer puts out; g_i is made of that layer by layer (see `sites`): as an outer product
that is never written out where a layer has one row per sample, else in pieces of at most `memory`
bytes. Linear layers, convolutions, embeddings, norms, attention, gains, position embeddings,
recurrent layers and tied weights are all handled; what is refused, by name: graphs whose samples
depend on each other, and values in which they cannot be told apart.

The graph is the model in evaluation mode: BatchNorm normalises with its running statistics, there
is no dropout. Gradients are in the model's dtype, sums over entries of float32 in float64.
These are properties of the probe at the recorded weights, not of the training batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndt_offline.graph.program import Graph
from ndt_offline.replay.backward import Backward, Probed, inverse_roots, square
from ndt_offline.replay.sites import Plan, Site, make_plan

Array = npt.NDArray[np.float64]

MEMORY = 256 << 20  # bytes of gradients of single samples that are written out at one time


@dataclass(frozen=True)
class GradientSums:
    """Of one checkpoint: squared, along [parameter, sample]; direction [parameter]; see above.

    names: parameters as in the state dict, with aliases of tied ones left out.
    mean: the gradient of the probe's loss, by name.
    whole_direction: the same of all parameters as one vector.
    """

    names: tuple[str, ...]
    squared: Array
    along: Array
    direction: Array
    whole_direction: float
    mean: Mapping[str, Tensor]

    @property
    def whole(self) -> tuple[Array, Array, float]:
        """squared [n], along [n] and direction of the whole model."""
        return self.squared.sum(0), self.along.sum(0), self.whole_direction


class SampleGradients:
    """Made once for a graph and a probe: finds out where the samples are, then serves checkpoints.

    `state` gives the buffers for that. RefusedError, by name, where it cannot be done, UsageError
    without labels or a loss.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Any,
        targets: Tensor | None,
        loss: str,
        state: Mapping[str, Tensor],
        memory: int = MEMORY,
    ) -> None:
        self.plan: Plan = make_plan(graph, state, inputs)
        self.memory = memory
        self._job = Probed(graph, inputs, targets, loss)
        keys = {slot.name: slot.key for slot in graph.document.parameters}
        self.names = tuple(keys[name] for name in self.plan.sites)

    def sums(self, state: Mapping[str, Tensor]) -> GradientSums:
        """All sums for one checkpoint: one forward pass, two backward, and the samples' parts."""
        passed = Backward(self.plan, self._job, state, self.memory)
        rows = [_one(passed, name) for name in self.plan.sites]
        squared = np.stack([row[0] for row in rows])
        return GradientSums(
            self.names,
            squared,
            np.stack([row[1] for row in rows]),
            np.array([row[2] for row in rows]),
            passed.direction(squared.sum(0)),
            dict(zip(self.names, passed.mean.values(), strict=True)),
        )

    def single(self, state: Mapping[str, Tensor], name: str) -> Iterator[Tensor]:
        """The gradients themselves, [samples of a piece, *shape], in pieces of `memory` bytes."""
        passed = Backward(self.plan, self._job, state, self.memory)
        parameter = list(self.plan.sites)[self.names.index(name)]
        for part in passed.pieces(parameter):
            yield passed.gradients(parameter, part)


def _one(passed: Backward, parameter: str) -> tuple[Array, Array, float]:
    """squared, along, direction of one parameter."""
    sites = passed.plan.sites[parameter]
    if len(sites) == 1 and sites[0].route == "outer" and sites[0].carrier == parameter:
        return _outer(passed, sites[0], parameter)
    squared, along = np.empty(passed.plan.samples), np.empty(passed.plan.samples)
    mean = passed.mean[parameter].reshape(-1)
    total = torch.zeros_like(mean, dtype=torch.float64)
    for part in passed.pieces(parameter):
        rows = passed.gradients(parameter, part).reshape(part.stop - part.start, -1)
        squared[part] = square(rows).cpu().numpy()
        along[part] = (rows @ mean).double().cpu().numpy()
        weights = torch.from_numpy(inverse_roots(squared[part])).to(rows)
        total += weights @ rows
    return squared, along, float(total @ total)


def _outer(passed: Backward, site: Site, parameter: str) -> tuple[Array, Array, float]:
    """The same where g_i = d_i x_i' : |g_i|^2 = |d_i|^2 |x_i|^2, g_i . m = d_i' m x_i."""
    slopes = passed.slopes[site.outputs[0][0]]
    rows = passed.values[site.batched[0]]
    mean = passed.mean[parameter]
    squared = (square(slopes) * square(rows)).cpu().numpy()
    seen = rows @ (mean if site.flipped else mean.T)
    along = torch.linalg.vecdot(slopes, seen).double().cpu().numpy()
    weights = torch.from_numpy(inverse_roots(squared)).to(slopes)
    total = (slopes * weights[:, None]).T @ rows
    return squared, along, float(square(total.reshape(1, -1)))
