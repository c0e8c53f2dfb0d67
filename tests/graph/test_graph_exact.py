"""The graph computes what the model computes: the output and every module's output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graph_zoo import ZOO, exported
from live_model import verify_layers
from torch import nn

from ndt_offline.graph import load_graph

# Fused kernels of eager mode that a graph has no part in: nn.TransformerEncoder's fast path is
# switched off by the hooks of the comparison, so nothing is expected to differ.
CLOSE: dict[str, float] = {}


def trained(model: nn.Module) -> None:
    """Other weights than those of the export, as a later checkpoint has."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_graph_equals_model(name: str, tmp_path: Path) -> None:
    graph, model, batch = exported(name)
    assert graph.difference is not None and graph.difference <= CLOSE.get(name, 0.0)
    graph.save(tmp_path)
    loaded = load_graph(tmp_path)
    assert loaded.fingerprint == graph.fingerprint
    trained(model)
    differences = verify_layers(loaded, model, batch)
    called = {call.module for call in loaded.document.calls}
    assert {path.split("#")[0] for path in differences} <= called | {""}
    worst = max(differences, key=lambda path: differences[path])
    assert differences[worst] <= CLOSE.get(name, 0.0), worst
