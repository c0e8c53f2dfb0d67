"""Curvature of the probe's loss: the largest eigenvalue of its Hessian, and where the gradient lies.

H is the Hessian of the probe's mean loss in all floating parameters of the graph as one vector,
g the gradient. The largest eigenvalue (the algebraically largest, sharpness) by Lanczos' method
with full reorthogonalisation, from products H v only: those are gradients of g . v, by
differentiating the recorded graph twice. With s the last entry of the leading Ritz vector and b the
last off-diagonal entry of the tridiagonal matrix, |H v - l v| = |b s|, and there is an eigenvalue
within r = min(|b s|, |b s|^2 / gap) of l, with the gap to the next Ritz value. Lanczos (1950);
Parlett, The Symmetric Eigenvalue Problem, chapter 13. Sharpness over training: Cohen et al.,
ICLR 2021; the gradient in the leading eigenspace: Gur-Ari, Roberts and Dyer, arXiv:1812.04754.

The graph is the model in evaluation mode, and the loss is the probe's: this is not the sharpness of
the training loss, nor of one batch. Where activations are piecewise linear, H leaves their kinks
out, as all automatic differentiation does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.graph.operations import RECURRENT, packet
from ndt_offline.graph.program import Graph
from ndt_offline.replay.backward import leaves
from ndt_offline.replay.losses import sample_losses

TOLERANCE = 1e-4  # of the eigenvalue
ITERATIONS = 60
MEMORY = 512 << 20  # bytes of Lanczos vectors; when they are full, it starts again from the best
# Of the start vector, the share that is the gradient: a leading direction that is new at this step
# has some part in it, and none in the eigenvector of the step before.
_FRESH = 0.05

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Leading:
    """Of a symmetric operator: its largest eigenvalue, unit eigenvector, and how sure they are.

    residual: |H v - value v| / |value|. iterations: products taken. converged: the estimated error
    of the value is within the tolerance.
    """

    value: float
    vector: Tensor
    iterations: int
    residual: float
    converged: bool


@dataclass(frozen=True)
class Curvature:
    """`leading` of the Hessian; alignment (g . v)^2 / |g|^2, in [0, 1]; gradient [all parameters].

    What an alignment by chance is: 1 / number of parameters. NaN where the gradient is zero.
    """

    leading: Leading
    alignment: float
    gradient: Tensor

    @property
    def value(self) -> float:
        return self.leading.value

    @property
    def vector(self) -> Tensor:
        """Of unit length; what the next step is started from."""
        return self.leading.vector


def curvature(
    graph: Graph,
    inputs: Any,
    targets: Tensor | None,
    loss: str,
    state: Mapping[str, Tensor],
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    memory: int = MEMORY,
) -> Curvature:
    """Largest Hessian eigenvalue of the probe's mean loss at the weights in `state`.

    start: an eigenvector found before, [all parameters], as `Curvature.vector`; without it, the
    gradient and fixed random numbers. NaN where loss or gradient are not finite.
    """
    with _twice_differentiable(graph):
        gradient, product = hessian(graph, inputs, targets, loss, state)
        size = float(gradient.norm())
        if not math.isfinite(size):
            empty = Leading(math.nan, torch.zeros_like(gradient), 0, math.nan, False)
            return Curvature(empty, math.nan, gradient)
        first = start_vector(gradient) if start is None else _warm(start, gradient)
        found = leading_eigenvalue(product, first, tolerance, iterations, memory)
    share = float(gradient @ found.vector) ** 2 / size**2 if size > 0 else math.nan
    return Curvature(found, min(share, 1.0) if size > 0 else share, gradient)


def hessian(
    graph: Graph, inputs: Any, targets: Tensor | None, loss: str, state: Mapping[str, Tensor]
) -> tuple[Tensor, Product]:
    """Gradient [all parameters] and v -> H v of the probe's mean loss, in the graph's dtype.

    Parameters stand in the graph's order, flattened; tied ones once, buffers not at all.
    """
    slots = graph.document.parameters
    wanted = {slot.name for slot in slots if slot.value.floating and not slot.buffer}
    weights = leaves(graph, state, wanted)
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


def leading_eigenvalue(
    product: Product,
    start: Tensor,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    memory: int = MEMORY,
) -> Leading:
    """Largest eigenvalue of a symmetric operator from products with vectors like `start`.

    Stops when its estimated error is within `tolerance` of it, or after `iterations` products.
    """
    if iterations < 1 or not tolerance > 0:
        raise UsageError(f"iterations={iterations}, tolerance={tolerance}: expected more than 0")
    length = float(start.norm())
    if not length > 0 or not math.isfinite(length):
        raise UsageError("the start vector has no direction")
    held = max(4, min(iterations, memory // max(start.nbytes, 1)))
    best, used = Leading(math.nan, start / length, 0, math.inf, False), 0
    while used < iterations:
        best = _lanczos(product, best.vector, tolerance, min(held, iterations - used))
        used += best.iterations
        if best.converged or not math.isfinite(best.value):
            break
    return Leading(best.value, best.vector, used, best.residual, best.converged)


def start_vector(gradient: Tensor) -> Tensor:
    """The same in every call: the gradient's direction and random numbers of equal weight."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(gradient.shape, generator=random).to(gradient)
    size = gradient.norm()
    return noise / noise.norm() + (gradient / size if size > 0 else 0)


def _lanczos(product: Product, start: Tensor, tolerance: float, most: int) -> Leading:
    basis = torch.empty(most, len(start), dtype=start.dtype, device=start.device)
    diagonal: list[float] = []
    beside: list[float] = []
    basis[0] = start
    for step in range(most):
        image = product(basis[step])
        diagonal.append(float(image @ basis[step]))
        if not math.isfinite(diagonal[-1]):
            return Leading(math.nan, start, step + 1, math.nan, False)
        # Twice: once leaves what rounding brought back of the vectors before.
        for _ in range(2):
            image -= (basis[: step + 1] @ image) @ basis[: step + 1]
        beside.append(float(image.norm()))
        values, ritz = _ritz(diagonal, beside)
        residual, error = _error(values, ritz, beside[-1])
        done = error <= tolerance * abs(values[-1]) or beside[-1] == 0
        if done or step == most - 1:
            break
        basis[step + 1] = image / beside[-1]
    weights = torch.from_numpy(ritz).to(basis)
    vector = weights @ basis[: len(diagonal)]
    size = abs(values[-1])
    share = residual / size if size > 0 else 0.0
    return Leading(float(values[-1]), vector / vector.norm(), len(diagonal), share, bool(done))


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, of the tridiagonal matrix, and the last one's eigenvector."""
    small = np.diag(diagonal)
    if len(diagonal) > 1:
        small += np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(small)
    return values, vectors[:, -1]


def _error(values: np.ndarray, ritz: np.ndarray, last: float) -> tuple[float, float]:
    """Residual of the leading Ritz pair, and the estimated error of its value."""
    residual = abs(last * float(ritz[-1]))
    if len(values) < 2 or values[-1] <= values[-2]:
        return residual, residual
    return residual, min(residual, residual**2 / float(values[-1] - values[-2]))


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
    fast = torch.backends.mkldnn.enabled and not recurrent  # type: ignore[attr-defined]
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=fast):
        try:
            yield
        except RuntimeError as error:
            if "derivative" not in str(error) and "differentiable" not in str(error):
                raise
            said = str(error).strip().splitlines()[0][:300]
            raise NdtError(f"the graph cannot be differentiated twice: {said}") from error


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
