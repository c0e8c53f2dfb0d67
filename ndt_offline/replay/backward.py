"""One checkpoint's backward pass over the probe, and the gradients of single samples from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ndt_offline.graph.operations import packet
from ndt_offline.graph.program import Graph
from ndt_offline.replay.losses import sample_losses
from ndt_offline.replay.sites import Plan, Site

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probed:
    """A graph with its probe: what a loss is computed from."""

    graph: Graph
    inputs: Any
    targets: Tensor | None
    loss: str


class Backward:
    """One checkpoint: values of the forward pass, and gradients with respect to the sites' results.

    Differentiable leaves stand for the parameters; everything that sites read is detached.
    """

    def __init__(
        self, plan: Plan, probed: Probed, state: Mapping[str, Tensor], memory: int
    ) -> None:
        self.plan, self.memory = plan, memory
        state = {**state, **leaves(probed.graph, state, set(plan.sites))}
        bound = probed.graph.bind(state, probed.inputs)
        values = {name: bound[name] for name in plan.values & bound.keys()}
        nodes = plan.values - bound.keys()
        output = probed.graph.run(state, probed.inputs, visit=values.__setitem__, nodes=nodes)
        self._losses = sample_losses(probed.loss, output, probed.targets, plan.samples)
        self._leaves = {name: bound[name] for name in plan.sites}
        # One backward pass for both: what neither asks for is not computed.
        asked = {name: values[name] for name in plan.outputs if values[name].requires_grad}
        slopes = torch.autograd.grad(
            self._losses.sum(),
            [*asked.values(), *self._leaves.values()],
            retain_graph=True,
            materialize_grads=True,
        )
        self.slopes = {name: torch.zeros_like(values[name]) for name in plan.outputs}
        self.slopes |= dict(zip(asked, slopes, strict=False))
        total = slopes[len(asked) :]
        self.mean = {n: g / plan.samples for n, g in zip(self._leaves, total, strict=True)}
        self.values = {name: value.detach() for name, value in values.items()}

    def direction(self, squared: Array) -> float:
        """|sum of g_i / |g_i||^2 with |g_i| of all parameters: the gradient of a weighted loss."""
        weights = torch.from_numpy(inverse_roots(squared)).to(self._losses.device)
        leaves = list(self._leaves.values())
        found = torch.autograd.grad(self._losses @ weights, leaves, materialize_grads=True)
        return float(sum(square(g.reshape(1, -1)) for g in found))

    def pieces(self, parameter: str) -> Iterator[slice]:
        """Ranges of samples whose gradients fit into memory."""
        step = max(1, self.memory // self._bytes(parameter))
        for begin in range(0, self.plan.samples, step):
            yield slice(begin, min(begin + step, self.plan.samples))

    def _bytes(self, parameter: str) -> int:
        """What one sample takes: its gradient twice over, and all results where they are masked."""
        size = 2 * self._leaves[parameter].nbytes
        for site in self.plan.sites[parameter]:
            size += self.values[site.carrier].nbytes
            if site.route == "mask":
                size += sum(self.values[name].nbytes for name, _ in site.outputs)
        return size

    def gradients(self, parameter: str, part: slice) -> Tensor:
        """g_i of the samples in `part`: [samples, *shape], the sum over the parameter's sites."""
        found: Tensor | None = None
        for site in self.plan.sites[parameter]:
            share = _ROUTES.get(site.route, Backward._split)(self, site, part)
            if site.carrier != parameter:
                share = self._through_makers(site.carrier, parameter, share)
            found = share if found is None else found + share
        assert found is not None
        return found

    def own(self, name: str, part: slice) -> Tensor:
        """A value's parts that belong to these samples: [samples, ...]."""
        value = self.slopes[name] if name in self.slopes else self.values[name]
        return self.plan.layouts[name].split(value, self.plan.samples)[part]

    def _split(self, site: Site, part: slice) -> Tensor:
        arguments = [
            self.plan.layouts[name].split(self.values[name], self.plan.samples)[part]
            for name in site.batched
        ]
        slopes = [self.own(name, part) for name, _ in site.outputs]
        carrier = self.values[site.carrier]

        def one(given: list[Tensor], slope: list[Tensor]) -> Tensor:
            def apply(value: Tensor) -> list[Tensor]:
                values = {name: self.values[name] for name in site.reads}
                values |= dict(zip(site.batched, given, strict=True))
                return _apply(site, values | {site.carrier: value})

            return torch.func.vjp(apply, carrier)[1](slope)[0]

        try:
            with _quiet():
                return torch.func.vmap(one)(arguments, slopes)
        except RuntimeError:  # an operation that cannot be batched
            count = len(slopes[0])
            rows = [one([a[i] for a in arguments], [s[i] for s in slopes]) for i in range(count)]
            return torch.stack(rows)

    def _shifted(self, site: Site, part: slice) -> Tensor:
        """Sums over all but the carrier's axis: channels are the first of an image, else last."""
        slopes = self.own(site.outputs[0][0], part)
        axis = 2 if packet(site.step.op).startswith("conv") else slopes.ndim - 1
        return slopes.sum([i for i in range(1, slopes.ndim) if i != axis])

    def _masked(self, site: Site, part: slice) -> Tensor:
        """All samples through the operation, and back with the gradient of one at a time."""
        carrier = self.values[site.carrier].detach().requires_grad_()
        results = _apply(site, {n: self.values[n] for n in site.reads} | {site.carrier: carrier})
        rows = []
        for sample in range(part.start, part.stop):
            masked = []
            for name, _ in site.outputs:
                whole = self.plan.layouts[name].split(self.slopes[name], self.plan.samples)
                alone = torch.zeros_like(whole)
                alone[sample] = whole[sample]
                masked.append(self.plan.layouts[name].join(alone))
            rows += torch.autograd.grad(results, carrier, masked, retain_graph=True)
        return torch.stack(rows)

    def _through_makers(self, carrier: str, parameter: str, share: Tensor) -> Tensor:
        """Gradients with respect to a carrier taken back to the parameter it is made of."""
        leaf = self._leaves[parameter].detach().requires_grad_()
        values: dict[str, Any] = {**self.values, parameter: leaf}
        for step in self.plan.makers:
            values[step.name] = step.apply(values, leaf.device)
            if step.name == carrier:
                break
        made = values[carrier]
        try:
            return torch.autograd.grad(made, leaf, share, retain_graph=True, is_grads_batched=True)[
                0
            ]
        except RuntimeError:
            rows = [torch.autograd.grad(made, leaf, one, retain_graph=True)[0] for one in share]
            return torch.stack(rows)


_ROUTES: dict[str, Callable[[Backward, Site, slice], Tensor]] = {
    "shift": Backward._shifted,
    "mask": Backward._masked,
}


def _apply(site: Site, values: dict[str, Any]) -> list[Tensor]:
    result = site.step.apply(values, values[site.carrier].device)
    return [result if index is None else result[index] for _, index in site.outputs]


def leaves(graph: Graph, state: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """These parameters, by their names in the state, in the graph's dtype, with gradients."""
    found = {}
    for slot in graph.document.parameters:
        if slot.name in wanted:
            name = next(n for n in (slot.key, *slot.aliases) if n in state)
            dtype = getattr(torch, slot.value.dtype)
            found[name] = state[name].detach().to(dtype).requires_grad_()
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Some kernels are looped over by vmap; torch says so at every call."""
    say = getattr(torch._C._functorch, "_set_vmap_fallback_warning_enabled", None)
    if say is None:
        yield
        return
    say(False)
    try:
        yield
    finally:
        say(True)


def square(rows: Tensor) -> Tensor:
    """|row|^2 in float64 without a float64 copy."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64) ** 2


def inverse_roots(squared: Array) -> Array:
    """1 / |g_i|; 0 for a sample without gradient, which has no direction."""
    return np.where(squared > 0, 1 / np.sqrt(np.where(squared > 0, squared, 1.0)), 0.0)
