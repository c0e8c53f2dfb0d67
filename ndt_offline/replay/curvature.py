"""Curvature of the probe's loss: the Hessian's largest eigenvalue, and where the gradient lies.

H is the Hessian of the probe's mean loss in all floating parameters of the graph as one vector,
g the gradient. The algebraically largest eigenvalue (sharpness) is found from products H v, which
are gradients of g . v: the recorded graph differentiated twice. Sharpness over training: Cohen et
al., ICLR 2021; the gradient in the leading eigenspace: Gur-Ari, Roberts and Dyer, arXiv:1812.04754.

On a small classifier the default tolerance gives the eigenvalue to 5e-5 and, an eigenvector being
known less well than its value, the alignment to about 1 %; 1e-8 gives both to 1e-3 and better.

The graph is the model in evaluation mode, and the loss is the probe's: this is not the sharpness of
the training loss, nor of one batch. Where activations are piecewise linear, H leaves their kinks
out, as all automatic differentiation does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.graph.document import Slot
from ndt_offline.graph.operations import RECURRENT, packet
from ndt_offline.graph.program import Graph
from ndt_offline.replay.backward import leaves
from ndt_offline.replay.lanczos import (
    ITERATIONS,
    MEMORY,
    TOLERANCE,
    Leading,
    Product,
    leading_eigenvalue,
    unknown,
)
from ndt_offline.replay.losses import sample_losses
from ndt_offline.replay.reduction import reduce

# Of a warm start, the share of this step's gradient: it has a part in directions that are new.
_FRESH = 0.05


@dataclass(frozen=True)
class Curvature:
    """`leading` of the Hessian; alignment (g . v)^2 / |g|^2, in [0, 1]; the gradient g.

    Vectors are in the coordinates of the `Sharpness` that found them. By chance the alignment is
    1 / their number. NaN where the gradient is zero.
    """

    leading: Leading
    alignment: float
    gradient: Tensor

    @property
    def value(self) -> float:
        return self.leading.value

    @property
    def vector(self) -> Tensor:
        """Of unit length."""
        return self.leading.vector


class Sharpness:
    """Made once for a graph and a labelled probe; `measure` serves its checkpoints.

    Coordinates are the parameters in the graph's order, flattened, tied ones once; a first linear
    layer's weight stands in the row space of the probe (see `reduction`): `whole` undoes that.
    """

    def __init__(self, graph: Graph, inputs: Any, targets: Tensor | None, loss: str) -> None:
        self._reduced = reduce(graph, inputs)
        self._targets, self._loss = targets, loss

    def measure(
        self,
        state: Mapping[str, Tensor],
        start: Curvature | Tensor | None = None,
        tolerance: float = TOLERANCE,
        iterations: int = ITERATIONS,
        memory: int = MEMORY,
    ) -> Curvature:
        """Largest Hessian eigenvalue of the probe's mean loss at the weights in `state`.

        start: what was found at the step before, or a vector; without it, the gradient and fixed
        random numbers. NaN where loss or gradient are not finite.
        """
        reduced = self._reduced
        with _twice_differentiable(reduced.graph):
            weights = reduced.weights(state)
            gradient, product = hessian(
                reduced.graph, reduced.inputs, self._targets, self._loss, weights
            )
            size = float(gradient.norm())
            if not math.isfinite(size):
                return Curvature(unknown(torch.zeros_like(gradient), 0), math.nan, gradient)
            gap = start.leading.gap if isinstance(start, Curvature) else math.inf
            first = start.leading.start if isinstance(start, Curvature) else start
            first = start_vector(gradient) if first is None else _warm(first, gradient)
            found = leading_eigenvalue(product, first, tolerance, iterations, memory, gap)
        share = float(gradient @ found.vector) ** 2 / size**2 if size > 0 else math.nan
        return Curvature(found, min(share, 1.0) if size > 0 else share, gradient)

    def whole(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector in these coordinates as one tensor for each parameter."""
        slots = _differentiable(self._reduced.graph)
        parts = vector.split([slot.value.elements for slot in slots])
        shaped = {s.key: part.reshape(s.value.shape) for s, part in zip(slots, parts, strict=True)}
        return {name: self._reduced.whole(name, value) for name, value in shaped.items()}


def curvature(
    graph: Graph,
    inputs: Any,
    targets: Tensor | None,
    loss: str,
    state: Mapping[str, Tensor],
    start: Curvature | Tensor | None = None,
    **options: Any,
) -> Curvature:
    """`Sharpness.measure` for one checkpoint."""
    return Sharpness(graph, inputs, targets, loss).measure(state, start, **options)


def hessian(
    graph: Graph, inputs: Any, targets: Tensor | None, loss: str, state: Mapping[str, Tensor]
) -> tuple[Tensor, Product]:
    """Gradient [all parameters] and v -> H v of the probe's mean loss, in the graph's dtype.

    Parameters stand in the graph's order, flattened; tied ones once, buffers not at all.
    """
    weights = leaves(graph, state, {slot.name for slot in _differentiable(graph)})
    output = graph.run({**state, **weights}, inputs, nodes=())
    value = sample_losses(loss, output, targets, len(output)).mean()
    parameters = list(weights.values())
    slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
    # A slope without a history does not change with the weights: its rows of H are zero.
    curved = [slope for slope in slopes if slope.requires_grad]

    def product(vector: Tensor) -> Tensor:
        parts = vector.to(slopes[0].dtype).split([slope.numel() for slope in slopes])
        given = [
            part.reshape(slope.shape)
            for part, slope in zip(parts, slopes, strict=True)
            if slope.requires_grad
        ]
        if not curved:
            return torch.zeros_like(vector)
        found = torch.autograd.grad(
            curved, parameters, given, retain_graph=True, materialize_grads=True
        )
        return _flat(found)

    return _flat(slopes).detach(), product


def _differentiable(graph: Graph) -> list[Slot]:
    slots = graph.document.parameters
    return [slot for slot in slots if slot.value.floating and not slot.buffer]


def start_vector(gradient: Tensor) -> Tensor:
    """The same in every call: the gradient's direction and random numbers of equal weight."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(gradient.shape, generator=random).to(gradient)
    size = gradient.norm()
    return noise / noise.norm() + (gradient / size if size > 0 else 0)


def _warm(start: Tensor, gradient: Tensor) -> Tensor:
    """The eigenvector of another step, with a share of this step's gradient."""
    if start.shape != gradient.shape:
        raise UsageError(f"a start of {len(start)} entries for {len(gradient)} parameters")
    start = start.to(gradient)
    length, size = float(start.norm()), float(gradient.norm())
    if not length > 0 or not math.isfinite(length):
        return start_vector(gradient)
    sign = 1.0 if float(start @ gradient) >= 0 else -1.0
    return start / length + (sign * _FRESH / size * gradient if size > 0 else 0)


@contextmanager
def _twice_differentiable(graph: Graph) -> Iterator[None]:
    """Kernels that can be differentiated twice: plain attention, recurrence step by step."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    recurrent = any(packet(node.op) in RECURRENT for node in graph.document.nodes)
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", UserWarning)  # setting the flags names other devices
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        try:
            yield
        except RuntimeError as error:
            if "derivative" not in str(error) and "differentiable" not in str(error):
                raise
            said = str(error).strip().splitlines()[0][:300]
            raise NdtError(f"the graph cannot be differentiated twice: {said}") from error


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
