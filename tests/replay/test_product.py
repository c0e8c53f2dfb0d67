"""Layers that widen: from their factors, against a float64 SVD of the matrix itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ndt_offline import Recorder
from ndt_offline.graph import export_graph
from ndt_offline.graph.layers import choose_layers
from ndt_offline.graph.widening import Widening, find_widening
from ndt_offline.replay import forward, product
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.product import product_values
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.replay.spectra import RANK_FIRST
from ndt_offline.run.reader import Decoder, open_run

OUT = RANK_FIRST + 16


def factors(inputs: np.ndarray, seed: int = 0) -> tuple[np.ndarray, ...]:
    """The float32 matrix x W' + b, x, W and b."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(OUT, inputs.shape[1])).astype(np.float32)
    bias = rng.normal(size=OUT).astype(np.float32)
    x = inputs.astype(np.float32)
    return x @ weight.T + bias, x, weight, bias


def gaussian(rows: int, inside: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, inside))


def normalised(rows: int, inside: int) -> np.ndarray:
    """As from LayerNorm: the features of a row sum to zero, so that x itself lacks a rank."""
    x = gaussian(rows, inside)
    x -= x.mean(1, keepdims=True)
    return x / x.std(1, keepdims=True)


INPUTS = {
    "gaussian": gaussian(900, 60),
    "fewer rows than outputs": gaussian(RANK_FIRST + 2, 60),
    "normalised": normalised(900, 60),
    "graded": gaussian(900, 60) * np.logspace(0, -4, 60),
    "one large mean": gaussian(900, 60) + 300.0,
    "dead inputs": gaussian(900, 60) * (np.arange(60) % 3 > 0),
    "tiny": 1e-12 * gaussian(900, 60),
    "huge": 1e12 * gaussian(900, 60),
}


GRADED = {"graded", "one large mean"}  # with values near 1e-4 s1
# Rounding left out, asked, seen.
CASES = [(name, stray) for name in INPUTS for stray in (0.0, product.STRAY, 1e9)]


@pytest.mark.parametrize(("name", "stray"), [c for c in CASES if c[1] or c[0] not in GRADED])
def test_values_of_a_layer_that_widens(
    name: str, stray: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "STRAY", stray)
    matrix, x, weight, bias = factors(INPUTS[name])
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    found = product_values(matrix, x, weight, bias)
    assert found is not None and found.shape == exact.shape and (np.diff(found) <= 0).all()
    large = exact >= 1e-4 * exact[0]
    np.testing.assert_allclose(found[large], exact[large], rtol=1e-6)
    # Of the layer's own values none is off by more than rounding, and there are no others.
    assert np.abs(found - exact).max() <= 2e-7 * exact[0]
    assert not found[x.shape[1] + 1 :].any()


def test_rounding_is_seen_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, seen = [], product._seen

    def counted(*given: Any) -> Any:
        looked.append(1)
        return seen(*given)

    monkeypatch.setattr(product, "_seen", counted)
    for name in INPUTS:
        looked.clear()
        product_values(*factors(INPUTS[name]))
        assert bool(looked) == (name in GRADED), name


def test_an_overflow_in_the_layer_is_not_missed() -> None:
    matrix, *rest = factors(INPUTS["gaussian"])
    for value in (np.inf, -np.inf, np.nan):
        matrix[5, 7] = value
        assert product_values(matrix, *rest) is None


def test_parts_that_cancel_are_left_to_the_matrix() -> None:
    """The weights take the inputs' largest direction out: its digits are not in what is left."""
    x = gaussian(900, 60)
    direction = gaussian(1, 60, seed=3)[0] / np.linalg.norm(gaussian(1, 60, seed=3))
    x += 1e5 * gaussian(900, 1, seed=4) * direction
    weight = gaussian(OUT, 60, seed=5)
    weight -= np.outer(weight @ direction, direction)
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    matrix = (x.astype(np.float64) @ weight.T).astype(np.float32)
    assert product_values(matrix, x, weight, None) is None
    kept = weight + 0.1 * direction.astype(np.float32)  # what is large is no longer taken out
    assert product_values(x @ kept.T, x, kept, None) is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_left_to_the_matrix(bad: float) -> None:
    _, x, weight, bias = factors(INPUTS["gaussian"])
    for part in (x, weight, bias):
        spoiled = part.copy()
        spoiled.flat[3] = bad
        given = [spoiled if one is part else one for one in (x, weight, bias)]
        assert product_values(given[0] @ given[1].T + given[2], *given) is None


class Net(nn.Module):
    """Two layers that widen, one by `addmm` with its weight flipped, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide = nn.LayerNorm(24), nn.Linear(24, OUT)
        self.narrow, self.kernel = nn.Linear(OUT, 24), nn.Parameter(torch.randn(24, OUT))
        self.shift = nn.Parameter(torch.randn(OUT))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(torch.relu(self.wide(self.norm(x))))
        return torch.addmm(self.shift, y.flatten(0, 1), self.kernel).view(*x.shape[:-1], OUT)


def test_factors_are_found_in_the_graph() -> None:
    torch.manual_seed(0)
    graph = export_graph(Net().eval(), torch.randn(20, 25, 24))
    layers, _ = choose_layers(graph)
    found = {x.name: find_widening(graph.document, x, RANK_FIRST) for x in layers}
    wide, narrow = found["wide"], found["narrow"]
    assert wide is not None and narrow is None
    assert (wide.weight, wide.flipped, wide.bias) == (("wide.weight",), False, ("wide.bias",))
    last = [x for name, x in found.items() if name not in ("wide", "narrow")]
    assert [(x.weight, x.flipped, x.bias) for x in last if x] == [(("kernel",), True, ("shift",))]
    for layer in layers:
        assert find_widening(graph.document, layer, OUT + 1) is None


@pytest.mark.parametrize("center", [False, True])
def test_a_replay_uses_them(center: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = Net(), torch.randn(20, 25, 24)
    with Recorder(tmp_path / "run", model, probe=(x, None), loss="none"):
        pass
    run = open_run(tmp_path / "run")
    calls: list[int] = []

    def counted(*given: object) -> np.ndarray | None:
        calls.append(1)
        return product_values(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(forward, "product_values", counted)
    setup = prepare(run, Parameters(center=center))
    row = Replayer(run, setup).measure(Decoder(run.path, run.entries).read(run.entries[0]))
    assert len(calls) == 2 and not row.problem
    seen = {}
    model.wide.register_forward_hook(lambda m, i, o: seen.update(wide=o.detach()))
    model.narrow.register_forward_hook(lambda m, i, o: seen.update(narrow=o.detach()))
    with torch.no_grad():
        last = model.eval()(x)
    for index, layer in enumerate(setup.activations):
        matrix = seen.get(layer.name, last).double().flatten(0, 1).numpy()
        matrix = matrix - matrix.mean(0) if center else matrix
        exact = np.linalg.svd(matrix, compute_uv=False)
        values = row.spectra["activations"][index][: len(exact)]
        large = exact >= 1e-4 * exact[0]
        np.testing.assert_allclose(values[large], exact[large], rtol=1e-6)
        assert np.abs(values - exact).max() <= 2e-7 * exact[0]


def test_half_precision_is_not_for_factors() -> None:
    graph = export_graph(nn.Linear(24, OUT).bfloat16(), torch.randn(500, 24).bfloat16())
    (layer,), _ = choose_layers(graph)
    assert find_widening(graph.document, layer, RANK_FIRST) is None
    single = export_graph(nn.Linear(24, OUT), torch.randn(500, 24))
    assert isinstance(find_widening(single.document, layer, RANK_FIRST), Widening)
