"""From a live model to a graph: torch.export, then our own plain document."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import NdtError, RefusedError
from ndt_offline.graph.comparing import relative_difference
from ndt_offline.graph.conversion import convert
from ndt_offline.graph.document import Document, dump
from ndt_offline.graph.inputs import call_model, flatten, pick, rebuild, structure
from ndt_offline.graph.models import frozen_copy, refuse_sharded, undisturbed, unwrap
from ndt_offline.graph.parsing import parse
from ndt_offline.graph.program import Graph
from ndt_offline.graph.storage import with_checksum

if TYPE_CHECKING:
    import torch

FALLBACK = "without a graph the analysis needs --model package.module:factory"


def export_graph(
    model: torch.nn.Module, inputs: Any, output: str | int | None = None, verify: bool = True
) -> Graph:
    """The forward pass of `model` on `inputs` (tensor, tuple or dict of tensors) as a `Graph`.

    The model is copied to the CPU and traced there in eval mode; one that cannot be copied is
    traced itself, its training flags and the random state are as before afterwards. The graph is
    static: it fits the shapes of `inputs` only. With `verify` it is compared with the model on
    `inputs`: `Graph.difference`. RefusedError names an operation that a graph may not hold, or
    says why the model cannot be exported; the remedy is always `--model`.
    """
    model = unwrap(model)
    refuse_sharded(model)
    twin = frozen_copy(model)
    subject = model if twin is None else twin
    flat = _placed(flatten(inputs), subject)
    with undisturbed(subject):
        try:
            document, constants = _trace(subject, flat, structure(inputs), output)
        except NdtError as error:
            raise error.at(remedy=FALLBACK) from None
        except Exception as error:  # torch.export raises almost anything
            raise RefusedError(
                f"the model cannot be exported: {type(error).__name__}: {_short(error)}",
                remedy=FALLBACK,
            ) from error
        document = parse(dump(with_checksum(document, constants)))
        graph = Graph(document, lambda: constants)
        if verify:
            _compare(graph, subject, flat, structure(inputs), output)
    return graph


def _trace(
    model: torch.nn.Module, flat: dict[str, torch.Tensor], kind: str, output: str | int | None
) -> tuple[Document, dict[str, torch.Tensor]]:
    import torch

    wrapper = _wrapper_class()(model, list(flat), kind, output)
    with _marks(model), _quiet():
        exported = torch.export.export(wrapper, tuple(flat.values()), strict=False)
        # Without in-place operations and composite ones that only torch knows; this is also what
        # makes replay unable to change the weights it reads.
        exported = exported.run_decompositions({})
    return convert(exported, model, flat, kind)


def _compare(
    graph: Graph, model: torch.nn.Module, flat: dict[str, Any], kind: str, output: str | int | None
) -> None:
    expected = pick(call_model(model, rebuild(flat, kind)), output)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    have = graph.run({name: tensor.detach() for name, tensor in state.items()}, flat)
    graph.document.notes["difference"] = relative_difference(have, expected)


def _placed(flat: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    device = next((p.device for p in model.parameters()), None)
    return {
        name: tensor.detach() if device is None else tensor.detach().to(device)
        for name, tensor in flat.items()
    }


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:300]


@lru_cache(maxsize=1)
def _wrapper_class() -> Callable[..., torch.nn.Module]:
    """A module around the model that takes flat inputs and returns the one tensor that counts."""
    import torch

    class Wrapper(torch.nn.Module):
        def __init__(
            self, model: torch.nn.Module, names: list[str], kind: str, output: str | int | None
        ) -> None:
            super().__init__()
            self.model, self.names, self.kind, self.output = model, names, kind, output

        def forward(self, *flat: torch.Tensor) -> torch.Tensor:
            batch = rebuild(dict(zip(self.names, flat, strict=True)), self.kind)
            return pick(call_model(self.model, batch), self.output)

    return Wrapper


@lru_cache(maxsize=1)
def mark_operator() -> Any:
    """An operator that does nothing but leave a node: where a module returned which tensor.

    A forward hook calls it on the module's output. It returns nothing, so that the program is the
    same with and without it, and it counts as a side effect, so that nobody removes it.
    """
    import torch

    torch.library.define("ndt_offline::mark", "(Tensor x, str module, int call) -> ()")
    torch.library.impl("ndt_offline::mark", "CompositeExplicitAutograd", _no_result)
    torch.library.register_fake("ndt_offline::mark", _no_result)
    operator = torch.ops.ndt_offline.mark.default
    torch.fx.node.has_side_effect(operator)
    return operator


def _no_result(x: torch.Tensor, module: str, call: int) -> None:
    return None


@contextmanager
def _marks(model: torch.nn.Module) -> Iterator[None]:
    operator = mark_operator()
    handles = []
    for path, module in model.named_modules():
        if path:
            handles.append(module.register_forward_hook(_marker(operator, path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _marker(operator: Any, path: str) -> Callable[..., None]:
    from ndt_offline.graph.inputs import first_tensor

    calls = [0]

    def mark(module: Any, args: Any, answer: Any) -> None:
        calls[0] += 1
        tensor = first_tensor(answer)
        if tensor is not None:
            operator(tensor, path, calls[0])

    return mark


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
