"""The leading Hessian eigenvalue against the full Hessian of small models."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ndt_offline.errors import UsageError
from ndt_offline.graph import Graph, export_graph
from ndt_offline.replay.curvature import Sharpness, curvature, hessian
from ndt_offline.replay.lanczos import leading_eigenvalue


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.body = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embed(tokens)))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.max_pool2d(torch.tanh(self.norm(self.conv(x))), 2).flatten(1))


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))


def data(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(5)
    labels = torch.randint(0, 3, (24,))
    if name == "mlp":
        return mlp(), torch.randn(24, 6), labels
    if name == "cnn":
        net = Small()
        net(torch.randn(50, 1, 6, 6))
        return net, torch.randn(24, 1, 6, 6), labels
    if name == "lstm":
        return Reader(), torch.randn(24, 4, 3), labels
    return Attending(), torch.randint(0, 5, (12, 3)), torch.randint(0, 5, (12, 3))


Case = tuple[Graph, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]


@cache
def case(name: str) -> Case:
    """Graph, probe, weights, and the full Hessian and gradient of the eager model."""
    net, x, y = data(name)
    graph = export_graph(net, x)
    net.eval()
    names = list(graph.parameters)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    names = [name for name in names if name in dict(net.named_parameters())]
    shapes = [state[name].shape for name in names]

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        held = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            output = torch.func.functional_call(
                net.double(), {**state_double(state), **held}, wide(x)
            )
        return F.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1))

    flat = torch.cat([state[name].reshape(-1) for name in names]).double()
    with torch.backends.mkldnn.flags(enabled=False):
        full = torch.autograd.functional.hessian(loss, flat)
    return graph, x, y, state, full, torch.autograd.functional.jacobian(loss, flat)


def state_double(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: wide(value) for key, value in state.items()}


def wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


NAMES = ["mlp", "cnn", "transformer", "lstm"]


@pytest.mark.parametrize("name", NAMES)
def test_the_full_hessian(name: str) -> None:
    graph, x, y, state, full, gradient = case(name)
    values, vectors = torch.linalg.eigh(full)
    found = curvature(graph, x, y, "cross_entropy", state)
    assert found.leading.converged
    assert found.value == pytest.approx(float(values[-1]), rel=1e-3)
    assert float((found.vector.double() @ vectors[:, -1]).abs()) == pytest.approx(1, abs=1e-3)
    share = float((gradient @ vectors[:, -1]) ** 2 / gradient.square().sum())
    tight = curvature(graph, x, y, "cross_entropy", state, tolerance=1e-8)
    assert tight.value == pytest.approx(float(values[-1]), rel=1e-5)
    assert tight.alignment == pytest.approx(share, rel=1e-3)
    assert float((found.gradient.double() - gradient).norm()) <= 1e-5 * float(gradient.norm())


@pytest.mark.parametrize("name", NAMES)
def test_products_are_those_of_the_full_hessian(name: str) -> None:
    from ndt_offline.replay.curvature import _twice_differentiable

    graph, x, y, state, full, _ = case(name)
    vector = torch.randn(len(full))
    with _twice_differentiable(graph):
        product = hessian(graph, x, y, "cross_entropy", state)[1]
        found = product(vector).double()
    assert float((found - full @ vector.double()).norm()) <= 1e-4 * float(found.norm())


def test_it_is_the_same_every_time() -> None:
    graph, x, y, state, _, _ = case("mlp")
    one, other = (curvature(graph, x, y, "cross_entropy", state) for _ in range(2))
    assert one.value == other.value and bool((one.vector == other.vector).all())


def wide_probe() -> tuple[nn.Module, Tensor, Tensor]:
    """More features than samples, of still lower rank: the first layer is reduced."""
    torch.manual_seed(6)
    net = nn.Sequential(nn.Linear(20, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(9, 7) @ torch.randn(7, 20)
    return net, x, torch.randint(0, 3, (9,))


def test_a_probe_with_more_features_than_samples() -> None:
    net, x, y = wide_probe()
    graph = export_graph(net, x)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    sharpness = Sharpness(graph, x, y, "cross_entropy")
    found = sharpness.measure(state, tolerance=1e-8)
    assert len(found.vector) == 5 * 7 + 5 + 5 * 3 + 3
    net = net.double()
    names = list(state)

    def loss(*weights: Tensor) -> Tensor:
        held = dict(zip(names, weights, strict=True))
        return F.cross_entropy(torch.func.functional_call(net, held, x.double()), y)

    weights = tuple(value.double() for value in state.values())
    blocks = torch.autograd.functional.hessian(loss, weights)
    sizes = [value.numel() for value in weights]
    full = torch.cat(
        [torch.cat([b.reshape(n, m) for b, m in zip(row, sizes, strict=True)], 1)
         for row, n in zip(blocks, sizes, strict=True)]
    )  # fmt: skip
    values, vectors = torch.linalg.eigh(full)
    assert found.value == pytest.approx(float(values[-1]), rel=1e-5)
    whole = sharpness.whole(found.vector)
    assert {name: value.shape for name, value in whole.items()} == {
        name: value.shape for name, value in state.items()
    }
    flat = torch.cat([whole[name].reshape(-1) for name in names]).double()
    assert abs(float(flat @ vectors[:, -1])) == pytest.approx(1, abs=1e-4)
    slopes = torch.autograd.functional.jacobian(loss, weights)
    gradient = torch.cat([slope.reshape(-1) for slope in slopes])
    share = float((gradient @ vectors[:, -1]) ** 2 / gradient.square().sum())
    assert found.alignment == pytest.approx(share, rel=1e-3)


class Twice(nn.Module):
    """The probe is read by more than a linear layer: nothing may be reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + x[:, :3]


@pytest.mark.parametrize("kind", [Twice, lambda: nn.Linear(20, 3)])
def test_only_what_is_linear_in_the_probe_is_reduced(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(7)
    net, x, y = kind(), torch.randn(6, 20), torch.randint(0, 3, (6,))
    state = {key: value.detach() for key, value in net.state_dict().items()}
    graph = export_graph(net, x)
    found = curvature(graph, x, y, "cross_entropy", state, tolerance=1e-8)
    assert len(found.vector) == (3 * 20 + 3 if kind is Twice else 3 * 6 + 3)
    gradient, product = hessian(graph, x, y, "cross_entropy", state)
    plain = leading_eigenvalue(product, torch.ones_like(gradient), 1e-8)
    assert found.value == pytest.approx(plain.value, rel=1e-5)
    assert float(found.gradient.norm()) == pytest.approx(float(gradient.norm()), rel=1e-5)


def test_a_warm_start_saves_products() -> None:
    graph, x, y, state, _, _ = case("mlp")
    cold = curvature(graph, x, y, "cross_entropy", state)
    torch.manual_seed(0)
    near = {key: value + 1e-3 * torch.randn_like(value) for key, value in state.items()}
    warm = curvature(graph, x, y, "cross_entropy", near, start=cold)
    again = curvature(graph, x, y, "cross_entropy", near, tolerance=1e-8)
    assert warm.leading.iterations < cold.leading.iterations
    assert warm.value == pytest.approx(again.value, rel=1e-3)


def test_a_start_from_the_wrong_eigenvector_is_left() -> None:
    """Eigenvalues cross during training: the second eigenvector must not be the answer."""
    graph, x, y, state, full, _ = case("mlp")
    values, vectors = torch.linalg.eigh(full)
    found = curvature(graph, x, y, "cross_entropy", state, start=vectors[:, -2].float())
    assert found.value == pytest.approx(float(values[-1]), rel=1e-3)


def matrix(values: np.ndarray, seed: int = 0) -> Tensor:
    frame = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values),) * 2))[0]
    return torch.from_numpy(frame * values @ frame.T)


SPECTRA: dict[str, Callable[[], np.ndarray]] = {
    "gap": lambda: np.r_[np.linspace(-1, 1, 99), 3.0],
    "no gap": lambda: np.linspace(-1, 1, 100),
    "double": lambda: np.r_[np.linspace(-1, 1, 98), 2.0, 2.0],
    "large negative": lambda: np.r_[-50.0, np.linspace(-1, 1, 99)],
    "all negative": lambda: np.linspace(-3, -1, 100),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("memory", [1 << 30, 8 * 100 * 12])
def test_known_spectra(name: str, memory: int) -> None:
    values = SPECTRA[name]()
    full = matrix(values)
    start = torch.from_numpy(np.random.default_rng(1).standard_normal(100))
    found = leading_eigenvalue(lambda v: full @ v, start, 1e-4, 400, memory)
    assert found.converged
    assert found.value == pytest.approx(values.max(), rel=1e-3)
    residual = full @ found.vector - found.value * found.vector
    assert float(residual.norm()) / abs(found.value) == pytest.approx(found.residual, abs=1e-6)
    assert float(found.vector.norm()) == pytest.approx(1)


def test_an_exact_eigenvector_and_a_zero_operator() -> None:
    full = matrix(np.arange(1.0, 21.0))
    top = torch.linalg.eigh(full)[1][:, -1]
    found = leading_eigenvalue(lambda v: full @ v, top)
    assert found.value == pytest.approx(20) and found.iterations <= 3
    flat = leading_eigenvalue(torch.zeros_like, top)
    assert flat.value == 0.0 and flat.converged


def test_the_bound_on_products_holds_and_is_told() -> None:
    full = matrix(np.linspace(0, 1, 100))
    calls = []

    def product(vector: Tensor) -> Tensor:
        calls.append(1)
        return full @ vector

    start = torch.from_numpy(np.random.default_rng(2).standard_normal(100))
    found = leading_eigenvalue(product, start, 1e-12, 7)
    assert len(calls) == found.iterations == 7 and not found.converged


def test_weights_that_are_not_finite() -> None:
    graph, x, y, state, _, _ = case("mlp")
    broken = {**state, "0.weight": torch.full_like(state["0.weight"], math.nan)}
    found = curvature(graph, x, y, "cross_entropy", broken)
    assert math.isnan(found.value) and math.isnan(found.alignment)


def test_a_linear_loss_has_no_curvature() -> None:
    net, x, y = nn.Linear(4, 3), torch.randn(5, 4), 50 * torch.ones(5, 3)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    found = curvature(export_graph(net, x), x, y, "l1", state)
    assert found.value == 0.0 and found.leading.converged


def test_mistakes_are_refused() -> None:
    graph, x, y, state, _, _ = case("mlp")
    with pytest.raises(UsageError, match="start of 3"):
        curvature(graph, x, y, "cross_entropy", state, start=torch.ones(3))
    with pytest.raises(UsageError, match="labelled probe"):
        curvature(graph, x, None, "cross_entropy", state)
    with pytest.raises(UsageError, match="no direction"):
        leading_eigenvalue(lambda v: v, torch.zeros(4))
    with pytest.raises(UsageError, match="iterations"):
        leading_eigenvalue(lambda v: v, torch.ones(4), iterations=0)
