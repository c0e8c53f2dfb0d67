"""Metrics against closed forms, a direct computation, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.errors import UsageError
from ndt_offline.measure import METRICS
from ndt_offline.measure.metrics import choose_metrics, components, epsilon_rank


@pytest.mark.parametrize("n", [1, 4, 10, 100])
def test_identity_has_full_dimension(n: int) -> None:
    s = np.ones(n)
    for name, metric in METRICS.items():
        expected = math.ceil(0.9 * n) if name == "components_90" else n
        assert metric(s) == pytest.approx(expected, rel=1e-12), name


def test_rank_one_has_dimension_one() -> None:
    s = np.array([7.0, 0.0, 0.0])
    for name, metric in METRICS.items():
        assert metric(s) == pytest.approx(1.0, rel=1e-12), name


@pytest.mark.parametrize(("q", "n"), [(0.5, 20), (0.9, 50)])
def test_geometric_spectrum_closed_forms(q: float, n: int) -> None:
    s = q ** np.arange(n)

    def total(power: int) -> float:
        return (1 - q ** (power * n)) / (1 - q**power)

    expected = {
        "stable_rank": total(2),
        "participation_ratio": total(2) ** 2 / total(4),
        "participation_ratio_sv": total(1) ** 2 / total(2),
        "nuclear_norm_ratio": total(1),
        # Smallest k with 1 - q^(2k) >= 0.9 (1 - q^(2n)).
        "components_90": math.ceil(math.log(1 - 0.9 * (1 - q ** (2 * n))) / (2 * math.log(q))),
        "epsilon_rank": math.floor(math.log(0.01) / math.log(q)) + 1,
        # Entropy of a truncated geometric distribution with ratio q (and q^2 for the energies).
        "effective_rank": _geometric_entropy_rank(q, n),
        "effective_rank_energy": _geometric_entropy_rank(q * q, n),
    }
    for name, value in expected.items():
        assert METRICS[name](s) == pytest.approx(min(value, n), rel=1e-10), name


def _geometric_entropy_rank(q: float, n: int) -> float:
    total = (1 - q**n) / (1 - q)
    mean_index = q / (1 - q) - n * q**n / (1 - q**n)
    return math.exp(math.log(total) - mean_index * math.log(q))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (64, 5)])
def test_random_matrices_against_direct_numpy(shape: tuple[int, int]) -> None:
    a = np.random.default_rng(0).normal(size=shape)
    s = np.linalg.svd(a, compute_uv=False)
    gram = a @ a.T
    p, e = s / s.sum(), s**2 / (s**2).sum()
    direct = {
        "stable_rank": np.linalg.norm(a, "fro") ** 2 / np.linalg.norm(a, 2) ** 2,
        "participation_ratio": np.trace(gram) ** 2 / np.trace(gram @ gram),
        "participation_ratio_sv": s.sum() ** 2 / np.trace(gram),
        "nuclear_norm_ratio": np.linalg.norm(a, "nuc") / np.linalg.norm(a, 2),
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "effective_rank_energy": np.exp(-(e * np.log(e)).sum()),
        "components_90": next(k for k in range(1, len(s) + 1) if e[:k].sum() >= 0.9),
        "epsilon_rank": np.linalg.matrix_rank(a, tol=0.01 * s[0]),
    }
    assert direct.keys() == METRICS.keys()
    for name, value in direct.items():
        assert METRICS[name](s) == pytest.approx(value, rel=1e-9), name


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12),
    st.integers(-150, 150),
)
def test_scale_and_padding_change_nothing(values: list[float], exponent: int) -> None:
    s = np.sort(values)[::-1]
    padded = np.concatenate([s * 2.0**exponent, [np.nan] * 3])
    for name, metric in METRICS.items():
        value = float(metric(s))
        assert float(metric(padded)) == pytest.approx(value, rel=1e-12), name
        assert 1 - 1e-12 <= value <= len(s) * (1 + 1e-12), name


def test_zero_matrix_is_zero_and_unknown_is_nan() -> None:
    s = np.array([[0.0, 0.0], [np.nan, np.nan], [1.0, 1.0]])
    for name, metric in METRICS.items():
        result = metric(s)
        assert result[0] == 0.0 and np.isnan(result[1]) and result[2] == 2.0, name


def test_any_fraction_and_any_epsilon() -> None:
    s = np.sqrt([4.0, 3.0, 2.0, 1.0])
    assert [float(components(s, energy=e)) for e in (0.4, 0.41, 0.7, 0.9, 1.0)] == [1, 2, 2, 3, 4]
    assert float(choose_metrics(("components_70",))["components_70"](s)) == 2
    assert float(epsilon_rank(np.array([1.0, 0.5, 0.1]), epsilon=0.3)) == 2
    with pytest.raises(UsageError, match="not known"):
        choose_metrics(("rank",))
    with pytest.raises(UsageError, match="fraction"):
        components(s, energy=1.5)
