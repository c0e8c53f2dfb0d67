"""Running a graph: visits, memory, tied weights, constants, and probes that do not fit."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_zoo import ZOO, exported
from torch import nn

from ndt_offline.errors import DamagedError, NdtError, RefusedError, UsageError
from ndt_offline.graph import export_graph, load_graph
from ndt_offline.graph.document import Value
from ndt_offline.graph.guards import check_shapes
from ndt_offline.graph.inputs import flatten, pick, rebuild, structure
from ndt_offline.graph.layers import choose_layers
from ndt_offline.graph.precision import upcast
from ndt_offline.graph.rules import known_result
from ndt_offline.graph.steps import make_steps


def test_visits_are_in_order_and_only_where_asked() -> None:
    graph, model, batch = exported("mlp")
    every: list[str] = []
    graph.run(model.state_dict(), batch, lambda name, _: every.append(name))
    assert every == [node.name for node in graph.document.nodes]
    some: list[str] = []
    graph.run(model.state_dict(), batch, lambda name, _: some.append(name), {"relu"})
    assert some == ["relu"]
    with pytest.raises(UsageError, match="no node nothing"):
        graph.run(model.state_dict(), batch, lambda *_: None, {"nothing"})


def test_a_value_that_nothing_reads_any_more_is_freed() -> None:
    """A chain of ten layers: never more than two of their outputs are alive."""
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(10)))
    graph = export_graph(model, torch.randn(3, 6))
    alive: list[Any] = []
    most = 0

    def visit(name: str, tensor: torch.Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))

    graph.run({k: v.detach() for k, v in model.state_dict().items()}, torch.randn(3, 6), visit)
    assert len(alive) == 10 and most == 2


def test_nodes_that_nobody_needs_are_not_run() -> None:
    graph, _, _ = exported("mutating")
    assert "linear_1" in {node.name for node in graph.document.nodes}
    assert "linear_1" not in {step.name for step in make_steps(graph.document, ())}
    assert "linear_1" in {step.name for step in make_steps(graph.document, {"linear_1"})}


def test_replay_changes_nothing_it_reads() -> None:
    graph, model, batch = exported("mutating")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    probe = batch.clone()
    first = graph.run(state, probe)
    assert torch.equal(first, graph.run(state, probe)) and torch.equal(probe, batch)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_tied_weights_are_found_under_any_of_their_names() -> None:
    graph, model, batch = exported("gpt")
    state = model.state_dict()
    assert {"wte.weight", "head.weight"} <= set(state)
    assert len({"wte.weight", "head.weight"} & set(graph.parameters)) == 1
    expected = graph.run(state, batch)
    for leave in ("wte.weight", "head.weight"):
        partial = {name: tensor for name, tensor in state.items() if name != leave}
        assert torch.equal(graph.run(partial, batch), expected)
        graph.check_state({name: tuple(tensor.shape) for name, tensor in partial.items()})


def test_constants_travel_in_their_own_file(tmp_path: Path) -> None:
    graph, model, batch = exported("decoder")
    graph.save(tmp_path)
    assert (tmp_path / "graph.safetensors").exists()
    loaded = load_graph(tmp_path / "graph.json")
    expected = graph.run(model.state_dict(), batch)
    assert torch.equal(loaded.run(model.state_dict(), batch), expected)
    path = tmp_path / "graph.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match=r"graph\.safetensors"):
        load_graph(tmp_path).run(model.state_dict(), batch)
    path.unlink()
    with pytest.raises(DamagedError, match=r"graph\.safetensors"):
        load_graph(tmp_path).run(model.state_dict(), batch)


def test_files_are_whole_readable_and_only_what_is_needed(tmp_path: Path) -> None:
    exported("mlp")[0].save(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["graph.json"]
    mode = (tmp_path / "run" / "graph.json").stat().st_mode
    umask = 0o777 & ~stat.S_IMODE(mode)
    assert mode & stat.S_IRUSR and umask & 0o111 == 0o111
    json.loads((tmp_path / "run" / "graph.json").read_text())


def test_the_fingerprint_knows_content_and_nothing_else() -> None:
    def of(shift: float, bias: bool = True) -> str:
        class Shifted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 3, bias=bias)
                self.register_buffer("shift", torch.full((3,), shift), persistent=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) + self.shift

        return export_graph(Shifted(), torch.randn(2, 3)).fingerprint

    assert of(1.0) == of(1.0)
    assert len({of(1.0), of(2.0), of(1.0, bias=False)}) == 3


@pytest.mark.parametrize(
    ("probe", "match"),
    [
        (torch.randn(5, 12), r"x is float32\[5, 12\]; the graph was recorded for float32\[6, 12\]"),
        (torch.randn(6, 12).double(), "float64"),
        (torch.zeros(6, 12, dtype=torch.int64), "int64"),
        ((torch.randn(6, 12),), r"holds x\.0"),
        ({"tokens": torch.randn(6, 12)}, r"x\.tokens"),
        (None, "NoneType"),
    ],
    ids=range(6),
)
def test_a_probe_that_does_not_fit_is_refused(probe: Any, match: str) -> None:
    graph, model, _ = exported("mlp")
    with pytest.raises(UsageError, match=match):
        graph.check_inputs(probe)
    with pytest.raises(UsageError):
        graph.run(model.state_dict(), probe)


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    graph, model, batch = exported("mlp")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    graph.check_state(shapes)
    with pytest.raises(UsageError, match=r"no 3\.weight"):
        graph.check_state({name: s for name, s in shapes.items() if name != "3.weight"})
    with pytest.raises(UsageError, match=r"0\.bias has shape \[15\]"):
        graph.check_state(shapes | {"0.bias": (15,)})
    with pytest.raises(UsageError):
        graph.run({**model.state_dict(), "0.bias": torch.randn(15)}, batch)


def test_tokens_out_of_range_are_an_error_of_ours() -> None:
    graph, model, batch = exported("gpt")
    with pytest.raises(NdtError, match="embedding"):
        graph.run(model.state_dict(), torch.full_like(batch, 10**6))


def test_inputs_by_their_names_in_the_probe_file() -> None:
    graph, model, batch = exported("keywords")
    assert graph.inputs["x.tokens"] == Value("float32", (7, 4))
    flat = {f"x.{name}": tensor for name, tensor in batch.items()}
    state = model.state_dict()
    assert torch.equal(graph.run(state, flat), graph.run(state, batch))


@pytest.mark.parametrize(
    "batch", [torch.ones(2), (torch.ones(2), torch.ones(3)), {"a": torch.ones(1)}]
)
def test_flat_inputs_can_be_rebuilt(batch: Any) -> None:
    again = rebuild(flatten(batch), structure(batch))
    assert structure(again) == structure(batch) and str(again) == str(batch)


def test_the_output_is_the_tensor_that_counts() -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert pick(one) is one
    assert pick({"a": one, "logits": two}) is two
    assert pick((None, [one, two])) is one
    assert pick({"a": one, "b": two}, "b") is two
    assert pick((one, two), 1) is two
    for answer, output in ((5, None), ({"a": one}, "b"), ((one,), 3)):
        with pytest.raises(UsageError):
            pick(answer, output)


def test_another_output_can_be_chosen() -> None:
    model, batch = ZOO["with_loss"]()
    graph = export_graph(model, batch, output="logits")
    assert graph.output.shape == (4, 5)
    with pytest.raises((UsageError, RefusedError), match="nothing"):
        export_graph(model, batch, output="nothing")
    with pytest.raises(RefusedError, match="rand"):
        export_graph(model, batch, output="loss")


def test_modules_that_cannot_be_in_a_graph_are_listed() -> None:
    graph, _, _ = exported("with_loss")
    chosen, skipped = choose_layers(graph)
    assert [layer.name for layer in chosen] == ["fc"]
    assert set(dict(skipped)) == {"loss", "noise"} and "rand" in dict(skipped)["noise"]


def test_half_precision_can_be_replayed_in_single() -> None:
    graph, model, batch = exported("half_precision")
    single = upcast(graph)
    state = model.state_dict()
    expected = model.float()(batch.float()).detach()
    have = single.run(state, batch)
    assert have.dtype == torch.float32
    assert torch.allclose(have, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert single.fingerprint != graph.fingerprint


def test_many_checkpoints_at_once() -> None:
    graph, model, batch = exported("cnn")
    states = [
        {name: tensor + 0.1 * index for name, tensor in model.state_dict().items()}
        for index in range(3)
    ]
    needed = {name: torch.stack([state[name] for state in states]) for name in graph.parameters}
    together = torch.func.vmap(lambda state: graph.run(state, batch))(needed)
    for state, output in zip(states, together, strict=True):
        expected = graph.run(state, batch)
        assert torch.allclose(output, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_closed_form_shapes_are_the_recorded_ones(name: str) -> None:
    """torch itself says what every node gives; the closed forms must agree where they speak."""
    document = exported(name)[0].document
    check_shapes(document, make_steps(document, None))
    known = {slot.name: (slot.value,) for slot in document.slots()}
    for node in document.nodes:
        result = known_result(node, known)
        assert result is None or result == node.values, node
        known[node.name] = node.values


def test_reading_a_graph_and_choosing_layers_loads_no_torch(tmp_path: Path) -> None:
    exported("mlp")[0].save(tmp_path)
    code = (
        "import sys; from ndt_offline.graph import load_graph\n"
        "from ndt_offline.graph.layers import choose_layers\n"
        f"graph = load_graph({str(tmp_path)!r}); graph.fingerprint; choose_layers(graph)\n"
        "graph.check_state({name: value.shape for name, value in graph.parameters.items()})\n"
        "print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
