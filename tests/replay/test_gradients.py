"""Gradients of single samples against a plain loop over single samples through the eager model."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.graph import export_graph
from ndt_offline.measure.noise_scale import gradient_noise, gradient_numbers
from ndt_offline.replay.gradients import GradientSums, SampleGradients
from ndt_offline.replay.losses import loss_and_accuracy, sample_losses


class ConvNet(nn.Module):
    """Convolutions, grouped and strided, BatchNorm with running statistics, two heads' worth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm = nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.GroupNorm(2, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(F.gelu(self.norm(self.conv2(x))).mean((2, 3)))


class Decoder(nn.Module):
    """Causal Transformer with learned positions, a class token, and a tied embedding."""

    def __init__(self, words: int = 13, width: int = 12) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(9, width)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        layer = nn.TransformerEncoderLayer(width, 3, 20, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.gain = nn.Parameter(torch.randn(width))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = self.body(x, mask=mask, is_causal=True)[:, 1:] * self.gain
        return x @ self.embed.weight.T


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(11, 6), nn.LSTM(6, 7, 2, batch_first=True)
        self.fc = nn.Linear(7, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.rnn(self.embed(tokens))[0][:, -1])


class TimeFirst(nn.Module):
    """Attention that puts time before the batch inside, and tokens beside samples after it."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out = nn.Linear(5, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inside(x.transpose(0, 1))
        x = self.attention(x, x, x, need_weights=False)[0].transpose(0, 1)
        return self.out(x.reshape(-1, 8)).reshape(x.shape[0], -1)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 5))


def case(name: str) -> tuple[nn.Module, Tensor, Tensor, str]:
    torch.manual_seed(3)
    labels = torch.randint(0, 4, (6,))
    tokens = torch.randint(0, 11, (6, 5))
    if name == "mlp":
        return mlp(), torch.randn(6, 10), labels, "cross_entropy"
    if name == "cnn":
        net = ConvNet()
        net(torch.randn(40, 2, 9, 9) * 2 + 1)  # running statistics that are not the initial ones
        return net, torch.randn(6, 2, 9, 9), labels, "cross_entropy"
    if name == "transformer":
        return Decoder(), tokens, torch.randint(0, 13, (6, 5)), "cross_entropy"
    if name == "lstm":
        return Reader(), tokens, labels, "cross_entropy"
    return TimeFirst(), torch.randn(6, 4, 5), torch.randn(6, 12), "mse"


def eager_loss(name: str, output: Tensor, targets: Tensor) -> Tensor:
    if name == "mse":
        return F.mse_loss(output, targets)
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), targets.reshape(-1))


@cache
def looped(name: str) -> dict[str, Tensor]:
    return loop(*case(name))


def loop(net: nn.Module, x: Tensor, y: Tensor, loss: str) -> dict[str, Tensor]:
    """One sample after another through the model itself."""
    net = copy.deepcopy(net).eval()
    found: dict[str, list[Tensor]] = {name: [] for name, _ in net.named_parameters()}
    for i in range(len(x)):
        net.zero_grad()
        eager_loss(loss, net(x[i : i + 1]), y[i : i + 1]).backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            found[name].append(parameter.grad.clone())
    return {name: torch.stack(rows) for name, rows in found.items()}


@cache
def samples(name: str, **options: Any) -> tuple[SampleGradients, dict[str, Tensor]]:
    net, x, y, loss = case(name)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    return SampleGradients(export_graph(net, x), x, y, loss, state, **options), state


def norm(rows: Tensor) -> Tensor:
    return rows.double().reshape(len(rows), -1).norm(dim=1)


NAMES = ["mlp", "cnn", "transformer", "lstm", "time_first"]


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_of_single_samples(name: str) -> None:
    expected = looped(name)
    gradients, state = samples(name)
    assert set(gradients.names) == set(expected)
    # Where a gradient is zero in exact arithmetic (a key's bias) only rounding is left of it.
    largest = max(float(norm(rows).max()) for rows in expected.values())
    for key, rows in expected.items():
        found = torch.cat(list(gradients.single(state, key)))
        error = norm(found.double() - rows.double())
        assert bool((error <= 1e-5 * norm(rows) + 1e-7 * largest).all()), key


def direct(expected: dict[str, Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    found = {}
    for key, rows in expected.items():
        g = rows.double().reshape(len(rows), -1).numpy()
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        found[key] = (g**2).sum(1), g @ g.mean(0), float((unit.sum(0) ** 2).sum())
    return found


def check_sums(found: GradientSums, expected: dict[str, Tensor]) -> None:
    for index, key in enumerate(found.names):
        squared, along, direction = direct(expected)[key]
        if squared.max() < 1e-10:  # zero in exact arithmetic
            continue
        assert found.squared[index] == pytest.approx(squared, rel=2e-5), key
        assert found.along[index] == pytest.approx(along, abs=2e-5 * squared.max()), key
        assert found.direction[index] == pytest.approx(direction, rel=2e-5), key
        mean = expected[key].mean(0)
        assert float((found.mean[key] - mean).norm()) <= 1e-5 * float(norm(expected[key]).max())
    flat = torch.cat([expected[key].reshape(len(squared), -1) for key in found.names], 1)
    squared, along, direction = direct({"all": flat})["all"]
    assert found.whole[0] == pytest.approx(squared, rel=2e-5)
    assert found.whole[1] == pytest.approx(along, abs=2e-5 * squared.max())
    assert found.whole[2] == pytest.approx(direction, rel=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_sums_over_samples(name: str) -> None:
    gradients, state = samples(name)
    check_sums(gradients.sums(state), looped(name))


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_any_memory_gives_the_same(name: str) -> None:
    wide, state = samples(name)
    narrow, _ = samples(name, memory=10_000)
    one, other = wide.sums(state), narrow.sums(state)
    assert other.squared == pytest.approx(one.squared, rel=1e-5, abs=1e-12)
    assert other.direction == pytest.approx(one.direction, rel=1e-4, abs=1e-4)


def test_the_plan_serves_other_weights() -> None:
    gradients, state = samples("cnn")
    torch.manual_seed(8)
    other = {k: v + 0.3 * torch.randn_like(v) if "running" not in k and v.is_floating_point()
             else v for k, v in state.items()}  # fmt: skip
    net, x, y, loss = case("cnn")
    net.load_state_dict(other)
    check_sums(gradients.sums(other), loop(net, x, y, loss))


def test_numbers_of_a_measure() -> None:
    gradients, state = samples("mlp")
    found = gradients.sums(state)
    g = torch.cat([r.reshape(6, -1) for r in looped("mlp").values()], 1).double().numpy()
    numbers = gradient_numbers(*found.whole)
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert numbers["variance"] == pytest.approx(np.trace(np.cov(g.T)), rel=1e-4)
    assert numbers["alignment"] == pytest.approx((cosines.sum() - 6) / 30, abs=1e-5)
    known = gradient_noise((g**2).sum(1), g @ g.mean(0))
    assert numbers["signal_to_noise"] == pytest.approx(known.signal_to_noise, rel=1e-4)


def test_dead_parameters_have_no_direction() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    x, y = torch.randn(5, 4), torch.randint(0, 2, (5,))
    state = {key: value.detach() for key, value in net.state_dict().items()}
    found = SampleGradients(export_graph(net, x), x, y, "cross_entropy", state).sums(state)
    dead = found.names.index("0.weight")
    assert not found.squared[dead].any() and found.direction[dead] == 0.0
    assert math.isnan(
        gradient_numbers(found.squared[dead], found.along[dead], found.direction[dead])["alignment"]
    )


def test_half_precision_by_upcast() -> None:
    from ndt_offline.graph.precision import upcast

    torch.manual_seed(1)
    net, x, y = mlp().bfloat16(), torch.randn(6, 10).bfloat16(), torch.randint(0, 5, (6,))
    state = {key: value.detach() for key, value in net.state_dict().items()}
    wide = upcast(export_graph(net, x))
    found = SampleGradients(wide, x.float(), y, "cross_entropy", state).sums(state)
    check_sums(found, loop(net.float(), x.float(), y, "cross_entropy"))


LOSSES = [
    ("cross_entropy", (7, 4), torch.tensor([0, 1, 2, 3, -100, 1, 0])),
    ("cross_entropy", (7, 5, 4), torch.randint(0, 4, (7, 5))),
    ("cross_entropy", (7, 4, 3, 2), torch.randint(0, 4, (7, 3, 2))),
    ("cross_entropy", (7, 4), torch.softmax(torch.randn(7, 4), 1)),
    ("nll", (7, 4), torch.randint(0, 4, (7,))),
    ("mse", (7, 3), torch.randn(7, 3)),
    ("l1", (7, 1), torch.randn(7)),
    ("bce_with_logits", (7, 3), torch.randint(0, 2, (7, 3))),
]


@pytest.mark.parametrize(("name", "shape", "targets"), LOSSES)
def test_sample_losses_have_the_probes_loss_as_mean(
    name: str, shape: tuple[int, ...], targets: Tensor
) -> None:
    output = torch.log_softmax(torch.randn(shape), 1)
    each = sample_losses(name, output, targets, 7)
    assert each.shape == (7,)
    assert float(each.mean()) == pytest.approx(loss_and_accuracy(name, output, targets)[0])
    # Only the sample's own output matters.
    other = output.clone()
    other[2] += 1
    assert bool((sample_losses(name, other, targets, 7) == each)[[0, 1, 3, 4, 5, 6]].all())


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x - x.mean(0))


def test_samples_that_depend_on_each_other_are_refused() -> None:
    net, x = BatchStatistics(), torch.randn(5, 4)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    with pytest.raises(RefusedError, match="depend on each other"):
        SampleGradients(export_graph(net, x), x, torch.randint(0, 3, (5,)), "cross_entropy", state)


class Lost(nn.Module):
    """Sorts the positions of all samples together, and undoes it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        return (x[order] * self.gain)[order.argsort()]


def test_samples_that_cannot_be_told_apart_are_refused_by_name() -> None:
    net, x = Lost(), torch.randn(5, 4)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    with pytest.raises(RefusedError, match="gain: the samples cannot be told apart in what mul"):
        SampleGradients(export_graph(net, x), x, torch.randn(5, 4), "mse", state)


def test_without_labels_or_loss() -> None:
    net, x, _, _ = case("mlp")
    state = {key: value.detach() for key, value in net.state_dict().items()}
    graph = export_graph(net, x)
    for targets, loss in ((None, "cross_entropy"), (torch.zeros(6).long(), "none")):
        with pytest.raises(UsageError, match="labelled probe"):
            SampleGradients(graph, x, targets, loss, state).sums(state)
