"""Where a graph's parameters meet the samples of a batch.

A value that depends on no input is shared by all samples: a parameter, or what nodes make of
parameters alone (a transposed or normalised weight, position embeddings). A site is a node that
reads such a value, its carrier, together with values that hold samples. The gradient of one sample
with respect to the carrier needs only that node, its arguments, and the gradient of the sample's
loss with respect to its results. Nothing is assumed of any operation: whether it can be done for
one sample alone is tried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ndt_offline.errors import NdtError, RefusedError
from ndt_offline.graph.document import Document, Node
from ndt_offline.graph.document import found as found_in
from ndt_offline.graph.inputs import flatten
from ndt_offline.graph.operations import RECURRENT, packet
from ndt_offline.graph.program import Graph
from ndt_offline.graph.steps import Step, make_steps
from ndt_offline.replay.trial import Layout, Trial, close, run_trial

# y = x W' or y = x W on rows x: where x and W stand, and whether W is [in, out].
_ROWS = {"linear": (0, 1, False), "addmm": (1, 2, True), "mm": (0, 1, True)}

# Where the bias stands, and whether it is added along the last axis, or along the channels.
_SHIFTS = {
    "linear": (2, True),
    "addmm": (0, True),
    "conv1d": (2, False),
    "conv2d": (2, False),
    "conv3d": (2, False),
}


@dataclass(frozen=True)
class Site:
    """`step` reads `carrier`; `batched` are those of the values it `reads` that hold samples.

    outputs: what it gives, by name, with its position where there are several.
    route: shift  a bias of rows or channels: gradients are sums
           outer  rows times a matrix, one row a sample: gradients are outer products
           split  the operation works on one sample alone
           mask   it does not: all samples pass, with the gradient of one
    flipped: for outer, the carrier is [in, out].
    """

    step: Step
    carrier: str
    reads: tuple[str, ...]
    batched: tuple[str, ...]
    outputs: tuple[tuple[str, int | None], ...]
    route: str = "mask"
    flipped: bool = False


@dataclass(frozen=True)
class Plan:
    """What does not depend on the weights.

    sites: by parameter (its name in the graph), the sites whose carrier depends on it
    makers: steps that make carriers of parameters alone; feeds: the values these read
    """

    samples: int
    layouts: Mapping[str, Layout]
    sites: Mapping[str, tuple[Site, ...]]
    makers: tuple[Step, ...]
    feeds: frozenset[str]

    @property
    def outputs(self) -> list[str]:
        """Results of all sites, in a fixed order."""
        names = (n for sites in self.sites.values() for s in sites for n, _ in s.outputs)
        return list(dict.fromkeys(names))

    @property
    def values(self) -> set[str]:
        """Names of all values that are needed of a forward pass."""
        every = [site for sites in self.sites.values() for site in sites]
        return set(self.outputs) | self.feeds | {name for site in every for name in site.reads}


def make_plan(graph: Graph, state: Mapping[str, Tensor], inputs: Any) -> Plan:
    """The plan for a graph and a probe; takes a few forward passes with random weights.

    `state` gives buffers such as running statistics. RefusedError, by name, where samples depend
    on each other, or cannot be told apart in a value that a parameter acts on.
    """
    document = graph.document
    given = flatten(inputs, graph.inputs)
    samples = next(iter(given.values())).shape[0]
    shared, origins = _shared(document)
    reading = [n for n in document.nodes if n.name not in shared and set(n.refs()) & set(origins)]
    results = {name for node in reading for name, _ in _outputs(document, node)}
    wanted = results | {document.output} | {name for node in reading for name in node.refs()}
    trial = run_trial(graph, state, given, samples, wanted, shared)
    trial.layouts.update(_states(reading, shared - set(origins), trial))
    steps = {step.name: step for step in make_steps(document, None)}
    found: dict[str, list[Site]] = {}
    for node in reading:
        for carrier in dict.fromkeys(node.refs()):
            owners = origins.get(carrier, frozenset())
            if owners:
                site = _site(document, node, carrier, steps[node.name], shared)
                _check_known(site, trial, [s.key for s in document.parameters if s.name in owners])
                site = _routed(site, node, trial)
            for owner in sorted(owners):
                found.setdefault(owner, []).append(site)
    made = [node for node in document.nodes if node.name in origins]
    feeds = {name for node in made for name in node.refs()} - {node.name for node in made}
    sites = {name: tuple(sites) for name, sites in found.items()}
    makers = tuple(steps[node.name] for node in made)
    return Plan(samples, trial.layouts, sites, makers, frozenset(feeds))


def _shared(document: Document) -> tuple[set[str], dict[str, frozenset[str]]]:
    """Values that depend on no input; of these, what parameters each is made of, if any."""
    batched = {slot.name for slot in document.inputs}
    origins = {
        slot.name: frozenset({slot.name})
        for slot in document.parameters
        if slot.value.floating and not slot.buffer
    }
    shared = {slot.name for slot in (*document.parameters, *document.constants)}
    for node in document.nodes:
        if batched & set(node.refs()):
            batched.add(node.name)
            continue
        shared.add(node.name)
        made = frozenset().union(*(origins.get(name, frozenset()) for name in node.refs()))
        if made:
            origins[node.name] = made
    return shared, origins


def _outputs(document: Document, node: Node) -> tuple[tuple[str, int | None], ...]:
    """Floating results of a node; those of several are what `getitem` nodes take."""
    if not node.many:
        known = node.value
        return ((node.name, None),) if known is not None and known.floating else ()
    picks = [n for n in document.nodes if n.op == "getitem" and n.args[0].name == node.name]
    return tuple((n.name, n.args[1]) for n in picks if n.value is not None and n.value.floating)


def _site(document: Document, node: Node, carrier: str, step: Step, shared: set[str]) -> Site:
    reads = tuple(dict.fromkeys(node.refs()))
    own = set(_state_names(node)) & (shared - {carrier})
    batched = tuple(name for name in reads if name not in shared or name in own)
    return Site(step, carrier, reads, batched, _outputs(document, node))


def _state_names(node: Node) -> list[str]:
    """The first states of a recurrent node: [layers, samples, size], mostly made of zeros."""
    return list(found_in(node.args[1])) if packet(node.op) in RECURRENT else []


def _states(reading: list[Node], shared: set[str], trial: Trial) -> dict[str, Layout]:
    """Where the samples are in first states that depend on nothing: all are the same there."""
    names = {name for node in reading for name in _state_names(node)} & shared
    return {name: Layout(1, True) for name in names}


def _check_known(site: Site, trial: Trial, parameters: list[str]) -> None:
    if not all(name in trial.layouts for name, _ in site.outputs):
        raise RefusedError(
            f"gradients of single samples for {', '.join(parameters)}: the samples cannot be told "
            f"apart in what {packet(site.step.op)} gives",
            layer=site.step.name,
        )


def _routed(site: Site, node: Node, trial: Trial) -> Site:
    if not all(name in trial.layouts for name in site.batched):
        return site
    if not all(_alone(site, trial, sample) for sample in (0, trial.samples - 1)):
        return site
    x, weight, flipped = _ROWS.get(packet(node.op), (0, 0, False))
    named = [getattr(argument, "name", None) for argument in node.args]
    if not node.kwargs and packet(node.op) in _SHIFTS:
        place, rows_last = _SHIFTS[packet(node.op)]
        bias = trial.values[site.carrier].ndim == 1 and named[place : place + 1] == [site.carrier]
        if bias and named.count(site.carrier) == 1 and (rows_last or _channels(site, trial)):
            return replace(site, route="shift")
    if packet(node.op) in _ROWS and not node.kwargs and named[weight] == site.carrier:
        rows = trial.values[str(named[x])]
        if named[x] in site.batched and tuple(rows.shape[:-1]) == (trial.samples,):
            return replace(site, route="outer", flipped=flipped)
    return replace(site, route="split")


def _channels(site: Site, trial: Trial) -> bool:
    return trial.layouts[site.outputs[0][0]] == Layout(0, True)


def _alone(site: Site, trial: Trial, sample: int) -> bool:
    """Whether the operation gives one sample the same when it has no other."""
    values: dict[str, Any] = {name: trial.values[name] for name in site.reads}
    for name in site.batched:
        values[name] = trial.layouts[name].split(values[name], trial.samples)[sample]
    carrier = values[site.carrier] = values[site.carrier].detach().requires_grad_()
    try:
        result = site.step.apply(values, carrier.device)
        # Some kernels take sizes that do not fit, and fail on the way back.
        picked = [result if index is None else result[index] for _, index in site.outputs]
        torch.autograd.grad([p.sum() for p in picked if p.requires_grad], carrier)
    except (RuntimeError, IndexError, ValueError, TypeError, NdtError):
        return False
    for (name, _), part in zip(site.outputs, picked, strict=True):
        whole = trial.layouts[name].split(trial.values[name], trial.samples)[sample]
        if part.shape != whole.shape or not close(part, whole):
            return False
    return True
