"""Whether a graph computes what the live model computes: the output, and layer by layer."""

from __future__ import annotations

from typing import Any

import torch

from ndt_offline.graph.comparing import relative_difference
from ndt_offline.graph.document import layer_name
from ndt_offline.graph.inputs import call_model, first_tensor, flatten, pick, rebuild, structure
from ndt_offline.graph.models import plain_name, undisturbed, unwrap
from ndt_offline.graph.program import Graph


def verify_graph(
    graph: Graph, model: torch.nn.Module, inputs: Any, output: str | int | None = None
) -> float:
    """max|graph - model| over the output's scale, on the model's own device and weights."""
    return verify_layers(graph, model, inputs, output, layers=False)[""]


def verify_layers(
    graph: Graph,
    model: torch.nn.Module,
    inputs: Any,
    output: str | int | None = None,
    layers: bool = True,
) -> dict[str, float]:
    """The relative difference of every module's output: {path, or path#2, ...: difference}.

    The graph's values are compared with what forward hooks on the live model see; "" is the
    chosen output.
    """
    model = unwrap(model)
    flat, kind = flatten(inputs), structure(inputs)
    device = next((p.device for p in model.parameters()), None)
    flat = {name: t if device is None else t.to(device) for name, t in flat.items()}
    seen: dict[str, torch.Tensor] = {}
    with undisturbed(model):
        handles = _watch(model, seen) if layers else []
        try:
            expected = pick(call_model(model, rebuild(flat, kind)), output).clone()
        finally:
            for handle in handles:
                handle.remove()
        have: dict[str, torch.Tensor] = {}
        result = graph.run(_state(model), flat, _keep(have), None if layers else ())
    differences = _by_layer(graph, have, seen) if layers else {}
    return {**differences, "": relative_difference(result, expected)}


def _state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {plain_name(name): t for name, t in state.items() if hasattr(t, "shape")}


def _watch(model: torch.nn.Module, seen: dict[str, torch.Tensor]) -> list[Any]:
    calls: dict[str, int] = {}

    def hook(path: str) -> Any:
        def keep(module: Any, args: Any, answer: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            tensor = first_tensor(answer)
            if tensor is not None:
                seen[layer_name(path, calls[path])] = tensor.detach().clone()

        return keep

    return [m.register_forward_hook(hook(path)) for path, m in model.named_modules() if path]


def _keep(have: dict[str, torch.Tensor]) -> Any:
    def visit(name: str, tensor: torch.Tensor) -> None:
        have[name] = tensor.clone()

    return visit


def _by_layer(
    graph: Graph, have: dict[str, torch.Tensor], seen: dict[str, torch.Tensor]
) -> dict[str, float]:
    named = {layer_name(call.module, call.call): call.node for call in graph.document.calls}
    return {
        name: relative_difference(have[named[name]], tensor)
        for name, tensor in seen.items()
        if named.get(name) in have
    }
