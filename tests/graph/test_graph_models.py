"""What happens to the user's model while it is exported: nothing."""

from __future__ import annotations

import copy
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_zoo import ZOO
from live_model import verify_graph
from torch import nn

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.graph import export_graph
from ndt_offline.graph.layers import choose_layers
from ndt_offline.graph.models import frozen_copy, load_factory, plain_name, unwrap


class Uncopied(nn.Module):
    """Holds what cannot be copied, and draws random numbers in forward when it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.fc, self.drop, self.norm = nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.drop(self.fc(x)))


def mixed_flags(model: nn.Module) -> None:
    model.train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)


@pytest.mark.parametrize("make", [Uncopied, lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout())])
def test_flags_hooks_state_and_randomness_are_as_before(make: Any) -> None:
    model = make()
    mixed_flags(model)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = [module.training for module in model.modules()]
    wanting = [parameter.requires_grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    hooks = [len(module._forward_hooks) for module in model.modules()]
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    graph = export_graph(model, torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(3), expected)
    assert graph.difference == 0.0
    assert [module.training for module in model.modules()] == before
    assert [parameter.requires_grad for parameter in model.parameters()] == wanting
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    if not isinstance(model, Uncopied):
        assert not calls


def test_what_cannot_be_copied_is_exported_itself() -> None:
    assert frozen_copy(Uncopied()) is None
    assert [la.name for la in choose_layers(export_graph(Uncopied(), torch.randn(6, 4)))[0]] == [
        "fc"
    ]


def test_the_old_weight_norm_keeps_its_hook() -> None:
    """Its weight is recomputed in a pre-hook: without it the graph would hold a constant."""
    model, batch = ZOO["old_weight_norm"]()
    graph = export_graph(model, batch)
    assert {"0.weight_g", "0.weight_v"} <= set(graph.parameters)
    with torch.no_grad():
        model.get_parameter("0.weight_g").mul_(3.0)
    assert verify_graph(graph, model, batch) == 0.0


def wrapped(kind: str, model: nn.Module) -> Any:
    if kind == "compiled":
        return torch.compile(model)
    if kind == "parallel":
        return nn.DataParallel(model)
    if kind == "both":
        return torch.compile(nn.DataParallel(torch.compile(model)))

    class DistributedDataParallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    return DistributedDataParallel(model)


@pytest.mark.parametrize("kind", ["compiled", "parallel", "both", "distributed"])
def test_wrapped_models_have_plain_names(kind: str) -> None:
    model, batch = ZOO["mlp"]()
    whole = wrapped(kind, model)
    assert unwrap(whole) is model
    graph = export_graph(whole, batch)
    assert set(graph.parameters) == set(model.state_dict())
    assert graph.fingerprint == export_graph(model, batch).fingerprint


def test_a_compiled_submodule_has_plain_names() -> None:
    model, batch = ZOO["mlp"]()
    model[0] = torch.compile(model[0])
    graph = export_graph(model, batch)
    assert set(graph.parameters) == {plain_name(name) for name in model.state_dict()}
    assert [layer.name for layer in choose_layers(graph)[0]] == ["0", "3"]
    assert verify_graph(graph, model, batch) <= 1e-5


def test_sharded_parameters_are_refused_with_the_remedy() -> None:
    class DTensor(nn.Parameter):
        pass

    model = nn.Linear(2, 2)
    model.weight = DTensor(torch.randn(2, 2))
    with pytest.raises(RefusedError, match="weight is sharded") as caught:
        export_graph(model, torch.randn(1, 2))
    assert "full state dict" in str(caught.value)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 0 else x


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Unlisted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x)[1]


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> str:
        return "done"


class Sizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Branching(), "cannot be exported"),
        (Random(), "rand"),
        (Unlisted(), "linalg_svd"),
        (Sizes(), "node|exported"),
        (nn.Linear(3, 3), "cannot be exported"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_cannot_be_a_graph_says_so_and_names_the_fallback(model: Any, match: str) -> None:
    with pytest.raises(RefusedError, match=match) as caught:
        export_graph(model, torch.randn(4, 5))
    assert "--model package.module:factory" in str(caught.value)


def test_a_model_that_returns_no_tensor() -> None:
    with pytest.raises((UsageError, RefusedError), match="no tensor"):
        export_graph(Nothing(), torch.randn(4, 5))


@pytest.mark.parametrize("inputs", [None, 3, "x", [], {}, (torch.ones(2), 3), {"a": [1]}])
def test_inputs_that_are_no_tensors(inputs: Any) -> None:
    with pytest.raises(UsageError):
        export_graph(nn.Linear(2, 2), inputs)


FACTORY = """
import torch
from torch import nn
def make(): return nn.Linear(3, 2)
def compiled(): return torch.compile(nn.Linear(3, 2))
def wrong(): return 5
def broken(): raise KeyError("size")
value = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "made_here.py").write_text(FACTORY)
    (tmp_path / "made_badly.py").write_text("import no_such_module_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "made_here", raising=False)
    return "made_here"


@pytest.mark.parametrize("name", ["make", "compiled"])
def test_factories(factories: str, name: str) -> None:
    assert isinstance(load_factory(f"{factories}:{name}"), nn.Linear)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("made_here", "not of the form"),
        ("made_here:make()", "not of the form"),
        ("../x:make", "not of the form"),
        ("no_such_place:make", "no module no_such_place"),
        ("made_badly:make", "no module no_such_module_at_all"),
        ("made_here:missing", "no function missing"),
        ("made_here:value", "no function value"),
        ("made_here:wrong", "returned int"),
        ("made_here:broken", "KeyError"),
    ],
)
def test_factories_that_do_not_work(factories: str, spec: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        load_factory(spec)


@pytest.fixture
def group() -> Any:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_torchs_own_wrappers_for_many_processes(group: None) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    model, batch = ZOO["mlp"]()
    graph = export_graph(DistributedDataParallel(model), batch)
    assert set(graph.parameters) == set(model.state_dict())
    with pytest.raises(RefusedError, match="sharded"):
        export_graph(fully_shard(nn.Sequential(nn.Linear(4, 4))), torch.randn(1, 4))
