"""Real models of the ecosystem, built from small configurations: nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from live_model import verify_layers

from ndt_offline.graph import export_graph, load_graph
from ndt_offline.graph.layers import choose_layers

transformers = pytest.importorskip("transformers")
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TOKENS = {"vocab_size": 30, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt2() -> tuple[torch.nn.Module, Any]:
    config = transformers.GPT2Config(n_positions=16, n_embd=16, n_layer=2, n_head=2, **TOKENS)
    return transformers.GPT2LMHeadModel(config), {"input_ids": torch.randint(30, (2, 7))}


def gpt2_eager() -> tuple[torch.nn.Module, Any]:
    config = transformers.GPT2Config(
        n_positions=16, n_embd=16, n_layer=1, n_head=2, attn_implementation="eager", **TOKENS
    )
    return transformers.GPT2LMHeadModel(config), torch.randint(30, (2, 7))


def bert() -> tuple[torch.nn.Module, Any]:
    config = transformers.BertConfig(max_position_embeddings=16, **SIZES, **TOKENS)
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    batch = {"input_ids": torch.randint(30, (2, 5)), "attention_mask": mask}
    return transformers.BertForSequenceClassification(config), batch


def vit() -> tuple[torch.nn.Module, Any]:
    config = transformers.ViTConfig(image_size=16, patch_size=4, **SIZES)
    return transformers.ViTForImageClassification(config), torch.randn(2, 3, 16, 16)


def llama() -> tuple[torch.nn.Module, Any]:
    config = transformers.LlamaConfig(num_key_value_heads=1, **SIZES, **TOKENS)
    return transformers.LlamaForCausalLM(config), {"input_ids": torch.randint(30, (2, 7))}


MODELS = [gpt2, gpt2_eager, bert, vit, llama]
LAYERS = {
    "gpt2": {"transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_proj", "lm_head"},
    "gpt2_eager": {"transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj", "lm_head"},
    "bert": {"bert.encoder.layer.1.attention.self", "bert.pooler.dense", "classifier"},
    "vit": {"vit.embeddings.patch_embeddings.projection", "classifier"},
    "llama": {"model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj", "lm_head"},
}


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_graph_equals_model(make: Callable[[], tuple[Any, Any]], tmp_path: Path) -> None:
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, batch = make()
        graph = export_graph(model, batch)
    assert graph.difference == 0.0
    graph.save(tmp_path)
    loaded = load_graph(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    differences = verify_layers(loaded, model, batch)
    assert max(differences.values()) == 0.0
    chosen = {layer.name for layer in choose_layers(loaded)[0]}
    assert chosen >= LAYERS[make.__name__]
    assert sum(path in differences for path in chosen) > 0.9 * len(chosen)
