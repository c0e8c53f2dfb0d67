"""Entropy, dead and saturated units, sparsity against counts made one by one."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.errors import UsageError
from ndt_offline.measure import units
from ndt_offline.measure.activations import units_of
from ndt_offline.measure.plugin import View
from ndt_offline.measure.units import activation_entropy, dead_share, saturated_share, sparsity


def direct_entropy(column: np.ndarray, bins: int) -> float:
    values = [float(v) for v in column]
    low, high = min(values), max(values)
    if low == high:
        return 0.0
    width = bins / (high - low)
    places = Counter(min(math.floor((v - low) * width), bins - 1) for v in values)
    shares = [count / len(values) for count in places.values()]
    return -math.fsum(share * math.log2(share) for share in shares)


@pytest.mark.parametrize("bins", [2, 10, 30, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entropy_is_the_direct_formula(bins: int, dtype: type) -> None:
    rng = np.random.default_rng(bins)
    x = rng.standard_normal((97, 11)).astype(dtype) * 10.0 ** rng.integers(-5, 5, 11)
    x[:, 3] = np.maximum(x[:, 3], 0)
    x[:, 4] = 2.5
    x[:, 5] = np.arange(97) % 7
    found = activation_entropy(x.astype(dtype), bins=bins)
    expected = [direct_entropy(column, bins) for column in x.astype(dtype).T]
    assert found == pytest.approx(expected, abs=1e-9)


def test_entropy_agrees_with_numpys_histogram() -> None:
    x = np.random.default_rng(0).standard_normal((500, 8))
    for column, found in zip(x.T, activation_entropy(x, bins=20), strict=True):
        share = np.histogram(column, 20)[0] / 500
        share = share[share > 0]
        assert found == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)


def test_entropy_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).standard_normal((50, 23)).astype(np.float32)
    whole = activation_entropy(x)
    monkeypatch.setattr(units, "_ELEMENTS", 150)
    assert (activation_entropy(x) == whole).all()


def test_entropy_of_known_units() -> None:
    n = 60
    even = np.repeat(np.arange(30.0), 2)
    coin = np.arange(n) % 2.0
    rare = np.r_[np.zeros(n - 1), 1.0]
    found = activation_entropy(np.stack([even, coin, rare, np.ones(n)], 1), bins=30)
    share = 1 / n
    rare_bits = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
    assert found == pytest.approx([math.log2(30), 1.0, rare_bits, 0.0], abs=1e-12)


@given(st.integers(0, 300), st.sampled_from([0.125, 1.0, 64.0]), st.integers(-4, 4))
def test_entropy_ignores_offset_and_scale(seed: int, scale: float, shift: int) -> None:
    # Eighths: offset and scale are exact, so that no value crosses the edge of a bin.
    x = np.random.default_rng(seed).integers(-80, 80, (40, 3)) / 8
    assert activation_entropy(scale * x + shift) == pytest.approx(activation_entropy(x), abs=1e-12)


def test_dead_units() -> None:
    x = np.array([[-1.0, 2.0, 0.0, -3.0], [-2.0, -1.0, 0.0, 1e-9]])
    assert dead_share(x) == 0.5  # the first and the third never pass a rectifier
    assert dead_share(np.maximum(x, 0), "post") == 0.5
    assert dead_share(np.maximum(x, 0), "post", tolerance=1e-6) == 0.75
    assert dead_share(x, "post") == 0.25  # negative output is an answer too


def test_sparsity() -> None:
    x = np.array([[-1.0, 2.0, 0.0, -3.0], [-2.0, -1.0, 0.0, 1e-9]])
    assert sparsity(x) == 6 / 8
    assert sparsity(np.maximum(x, 0), "post") == 6 / 8
    assert sparsity(x, "post") == 2 / 8
    assert sparsity(x, "post", tolerance=1e-6) == 3 / 8


def test_saturated_units() -> None:
    x = np.zeros((100, 4))
    x[:, 0] = 3.5  # saturated by every sample
    x[:95, 1] = -3.0  # by exactly the share that counts
    x[:94, 2] = 10.0  # by one too few
    assert saturated_share(x) == 0.5
    assert saturated_share(np.tanh(x), "post") == 0.5
    logistic = 1 / (1 + np.exp(-2 * x))
    assert saturated_share(logistic, "post", bounds=(0.0, 1.0)) == 0.5
    assert saturated_share(x, share=0.5) == 0.75


def test_what_is_not_finite_is_nan() -> None:
    x = np.ones((4, 3)) * np.arange(4.0)[:, None]
    for bad in (np.nan, np.inf, -np.inf):
        broken = x.copy()
        broken[2, 1] = bad
        found = activation_entropy(broken)
        assert np.isnan(found).tolist() == [False, True, False]
        for measure in (dead_share, saturated_share, sparsity):
            assert math.isnan(measure(broken))


def test_mistakes_are_refused() -> None:
    x = np.ones((4, 3))
    with pytest.raises(UsageError, match="bins"):
        activation_entropy(x, bins=1)
    with pytest.raises(UsageError, match="matrix"):
        activation_entropy(np.ones(3))
    for measure in (dead_share, saturated_share, sparsity):
        with pytest.raises(UsageError, match="after"):
            measure(x, "after")


def test_what_is_off_is_said_of_those_alone_that_give_zero() -> None:
    x = np.random.default_rng(0).normal(size=(200, 5))
    x[:, :3] = -np.abs(x[:, :3])  # three units that never answer
    shares = {"dead_share": 0.6, "sparsity": float((x <= 0).mean())}
    relu = units_of(View("a", "relu", now=np.maximum(x, 0)))
    before = units_of(View("a", "linear", now=x))
    for name, share in shares.items():
        assert relu[name] == before[name] == pytest.approx(share)
    outputs = {
        "gelu": x * 0.5 * (1 + np.tanh(0.8 * x)),
        "leaky_relu": np.where(x > 0, x, 0.01 * x),
        "elu": np.where(x > 0, x, np.expm1(x)),
        "tanh": np.tanh(x),
    }
    for kind, output in outputs.items():
        assert not units_of(View("a", kind, now=output)).keys() & shares
