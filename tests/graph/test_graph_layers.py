"""Which tensors are measured, under which names, and how they become matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graph_zoo import ZOO, exported
from torch import nn

from ndt_offline.errors import UsageError
from ndt_offline.graph import Graph, export_graph
from ndt_offline.graph.costs import forward_bytes, forward_flops
from ndt_offline.graph.layers import Layer, choose_layers, layer_matrix, weight_layers


def names(graph: Graph, *patterns: str) -> list[str]:
    return [layer.name for layer in choose_layers(graph, patterns or None)[0]]


def hooked(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """What forward hooks see: the first tensor of every module's output, by call."""
    seen: dict[str, torch.Tensor] = {}

    def first(answer: Any) -> Any:
        answer = list(answer.values()) if isinstance(answer, dict) else answer
        return first(answer[0]) if isinstance(answer, (tuple, list)) else answer

    def hook(path: str) -> Any:
        def keep(module: nn.Module, args: Any, answer: Any) -> None:
            number = sum(key.split("#")[0] == path for key in seen) + 1
            seen[path if number == 1 else f"{path}#{number}"] = first(answer).detach().clone()

        return keep

    for path, module in model.named_modules():
        module.register_forward_hook(hook(path))
    model.eval()
    args = batch if isinstance(batch, tuple) else (batch,)
    if isinstance(batch, dict):
        model(batch) if "a" in batch else model(**batch)
    else:
        model(*args)
    return seen


@pytest.mark.parametrize("name", sorted(ZOO))
def test_layers_are_what_forward_hooks_see(name: str) -> None:
    """With gradients on, as in training: other kernels for the same numbers, so not bit for bit."""
    graph, model, batch = exported(name)
    chosen, _ = choose_layers(graph)
    values: dict[str, torch.Tensor] = {}
    nodes = {layer.node for layer in chosen}
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    output = graph.run(state, batch, lambda node, value: values.update({node: value}), nodes)
    seen = hooked(model, batch)
    compared = 0
    for layer in chosen:
        if layer.name in seen:
            expected, compared = seen[layer.name].float(), compared + 1
            scale = float(expected.abs().max())
            assert float((values[layer.node].float() - expected).abs().max()) <= 1e-5 * scale
    assert compared or name in ("einsum", "lstm_projected")  # no module, or only the model itself
    assert output.shape == graph.output.shape


DEFAULT = {
    "mlp": ["0", "3"],
    "cnn": ["conv1", "conv2", "fc"],
    "lstm": ["rnn", "fc"],
    "gru_cell": ["cell", "cell#2", "cell#3", "fc"],
    "shared_module": ["fc", "fc#2", "fc#3", "matrix"],
    "attention": ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn", "fc"],
    "einsum": ["heads", "experts"],
    "reparametrised": ["0", "2", "4"],
    "mutating": ["fc", "side"],
    "keywords": ["left", "right"],
    "unet": ["down.0", "middle", "up", "out"],
}


@pytest.mark.parametrize("name", DEFAULT)
def test_default_layers(name: str) -> None:
    assert names(exported(name)[0]) == DEFAULT[name]


def test_a_decoder_has_its_projections_attention_and_tied_head() -> None:
    chosen = {layer.name: layer for layer in choose_layers(exported("decoder")[0])[0]}
    assert list(chosen)[:4] == [
        "body.layers.0.self_attn.in_proj",
        "body.layers.0.self_attn",
        "body.layers.0.linear1",
        "body.layers.0.linear2",
    ]
    assert chosen["body.layers.0.self_attn"].kind == "attention"
    assert list(chosen.values())[-1].columns == 23


def test_attention_that_is_no_module_is_measured_before_its_projection() -> None:
    graph, model, batch = exported("gpt")
    layer = next(la for la in choose_layers(graph)[0] if la.kind == "attention")
    assert (layer.name, layer.rows, layer.columns) == ("h.0.scaled_dot_product_attention", 22, 32)
    seen: list[torch.Tensor] = []
    model.get_submodule("h.0.proj").register_forward_pre_hook(
        lambda module, args: seen.append(args[0].detach())
    )
    model.eval()(batch)
    have: list[torch.Tensor] = []
    graph.run(model.state_dict(), batch, lambda _, value: have.append(value), {layer.node})
    assert torch.allclose(have[0], seen[0], rtol=0, atol=1e-5)


def test_one_tensor_has_one_name_and_the_other_is_listed() -> None:
    chosen, skipped = choose_layers(exported("written_out_attention")[0])
    assert [layer.name for layer in chosen] == ["0.qkv", "0.out", "2.qkv", "2.out"]
    assert dict(skipped) == {
        "0": "the same tensor as 0.out",
        "2": "the same tensor as 2.out",
    }


def test_globs_name_modules_nodes_and_activations() -> None:
    graph, _, _ = exported("cnn")
    assert names(graph, "conv?") == ["conv1", "conv2"]
    assert names(graph, "relu") == ["relu"]
    assert names(graph, "gelu", "fc", "bn*") == ["bn1", "gelu", "fc"]
    assert names(exported("mlp")[0], "1") == ["1"]
    assert len(names(graph, "*")) > 8


def test_a_glob_may_name_the_module_whose_tensor_has_a_better_name() -> None:
    assert names(exported("written_out_attention")[0], "0") == ["0"]


def test_a_glob_that_matches_nothing_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match="no layer matches 'con_1'") as caught:
        names(exported("cnn")[0], "fc", "con_1")
    assert "conv1" in str(caught.value) and "relu" in str(caught.value)


def test_rules_follow_the_origin_of_a_tensor() -> None:
    rules = {la.name: la.rule for la in choose_layers(exported("cnn")[0], ["*"])[0]}
    assert rules["conv1"] == rules["relu"] == rules["bn1"] == "flatten"
    assert rules["fc"] == "rows"
    rules = {la.name: la.rule for la in choose_layers(exported("gpt")[0], ["*"])[0]}
    assert rules["h.0.attn"] == rules["h.0.ln_1"] == rules["h.0.mlp.1"] == "tokens"
    line = export_graph(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), torch.randn(3, 2, 9))
    shapes = {la.name: (la.rule, la.rows, la.columns) for la in choose_layers(line, ["*"])[0]}
    assert shapes["1"] == ("flatten", 3, 28)


def test_rules_can_be_overridden() -> None:
    graph, _, _ = exported("cnn")
    chosen, _ = choose_layers(graph, None, {"conv1": "channels", "conv2": "tokens"})
    assert [(la.rule, la.rows, la.columns) for la in chosen[:2]] == [
        ("channels", 4 * 12 * 12, 6),
        ("tokens", 4 * 8 * 4, 4),
    ]
    with pytest.raises(UsageError, match="nothing"):
        choose_layers(graph, None, {"nothing*": "tokens"})
    with pytest.raises(UsageError, match="no shape rule 'wide'"):
        choose_layers(graph, None, {"conv1": "wide"})
    with pytest.raises(UsageError, match="4 dimensions"):
        choose_layers(graph, None, {"conv1": "rows"})


def test_large_layers_are_skipped_with_their_cost_unless_named() -> None:
    graph, _, _ = exported("cnn")
    chosen, skipped = choose_layers(graph, max_side=3)
    assert not chosen and [name for name, _ in skipped] == ["conv1", "conv2", "fc"]
    assert "exceeds 3" in skipped[0][1] and "flops" in skipped[0][1]
    assert [la.name for la in choose_layers(graph, ["conv1"], max_side=3)[0]] == ["conv1"]
    assert not choose_layers(graph, ["conv*"], max_side=3)[0]


def test_integers_and_scalars_are_no_layers() -> None:
    chosen, skipped = choose_layers(exported("decoder")[0], ["arange"])
    assert not chosen and skipped == [("arange", "its values are not floating")]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_matrices_of_every_rule(library: str) -> None:
    grid: Any = np.arange(2 * 3 * 4 * 5, dtype=np.float64).reshape(2, 3, 4, 5)
    given = torch.from_numpy(grid) if library == "torch" else grid
    flat = np.asarray(layer_matrix(given, "flatten"))
    assert flat.shape == (2, 60) and (flat[1] == grid[1].ravel()).all()
    tokens = np.asarray(layer_matrix(given, "tokens"))
    assert tokens.shape == (24, 5) and (tokens[1 * 12 + 2 * 4 + 3] == grid[1, 2, 3]).all()
    channels = np.asarray(layer_matrix(given, "channels"))
    assert channels.shape == (40, 3) and (channels[1 * 20 + 2 * 5 + 4] == grid[1, :, 2, 4]).all()
    line = given[0, 0, 0]
    assert layer_matrix(line, "rows").shape == (5, 1)
    assert layer_matrix(given[0, 0], "rows").shape == (4, 5)
    assert layer_matrix(given[0, 0], "channels").shape == (4, 5)


def test_weights_are_floating_matrices_counted_once() -> None:
    shapes = {
        "wte": ((30, 8), "float32"),
        "head": ((30, 8), "float32"),
        "conv": ((6, 3, 3, 3), "torch.bfloat16"),
        "bias": ((6,), "float32"),
        "mask": ((1, 1, 9, 9), "bool"),
        "pe": ((1, 50, 8), "float32"),
        "big": ((5000, 4000), "float32"),
        "empty": ((0, 4), "float32"),
    }
    chosen, skipped = weight_layers(shapes, tied={"head": "wte"}, buffers={"pe"})
    assert chosen == [
        Layer("wte", "wte", "weight", "flatten", 30, 8),
        Layer("conv", "conv", "weight", "flatten", 6, 27),
    ]
    reasons = dict(skipped)
    assert set(reasons) == {"head", "big", "empty"}
    assert reasons["head"] == "it is tied to wte" and "4000" in reasons["big"]
    named, reasons_named = weight_layers(shapes, ["big", "b*"])
    assert [layer.name for layer in named] == ["big"]
    assert dict(reasons_named) == {"bias": "it has fewer than two dimensions"}
    with pytest.raises(UsageError, match="no weight matches"):
        weight_layers(shapes, ["nothing"])


def test_buffers_are_known_to_the_graph() -> None:
    graph, _, _ = exported("cnn")
    assert graph.buffers == {"bn1.running_mean", "bn1.running_var"}


def test_costs_of_an_mlp_are_those_of_its_products() -> None:
    model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 20))
    graph = export_graph(model, torch.randn(10, 100))
    assert forward_flops(graph) == 2 * 10 * (100 * 50 + 50 * 20)
    assert forward_bytes(graph) == 4 * (10 * 50 + 10 * 20)
