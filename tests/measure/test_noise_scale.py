"""Gradient noise: a linear model whose gradient covariance is known, and direct formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.errors import UsageError
from ndt_offline.measure.noise_scale import (
    GradientNoise,
    alignment,
    coherence,
    gradient_noise,
    gradient_numbers,
    signal_and_noise,
)


def sums(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (g**2).sum(1), g @ g.mean(0)


class Regression:
    """y = w* x + e, x ~ N(0, C), e ~ N(0, s^2), squared error / 2 at w: g = x (x'd - e).

    With d = w - w*: G = C d, and by the Gaussian's fourth moments
    S = C d d' C + (d' C d + s^2) C.
    """

    def __init__(self, p: int = 12, noise: float = 0.7, off: float = 1.0) -> None:
        rng = np.random.default_rng(11)
        frame, _ = np.linalg.qr(rng.standard_normal((p, p)))
        self.root = frame * np.sqrt(np.linspace(0.2, 2.0, p))
        self.d, self.s = off * rng.standard_normal(p) / math.sqrt(p), noise
        cov = self.root @ self.root.T
        g = cov @ self.d
        self.signal = float(g @ g)
        self.noise = self.signal + float(self.d @ cov @ self.d + noise**2) * float(np.trace(cov))

    def gradients(self, rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.standard_normal((n, len(self.d))) @ self.root.T
        return x * (x @ self.d - self.s * rng.standard_normal(n))[:, None]

    def estimates(self, n: int, seeds: int) -> list[GradientNoise]:
        rngs = [np.random.default_rng([n, seed]) for seed in range(seeds)]
        return [gradient_noise(*sums(self.gradients(rng, n))) for rng in rngs]


def test_known_covariance_within_five_percent() -> None:
    model = Regression()
    found = gradient_noise(*sums(model.gradients(np.random.default_rng(0), 100_000)))
    assert found.signal == pytest.approx(model.signal, rel=0.05)
    assert found.noise == pytest.approx(model.noise, rel=0.05)
    assert found.scale == pytest.approx(model.noise / model.signal, rel=0.05)
    assert abs(found.scale - model.noise / model.signal) < 3 * found.error


def test_unbiased_over_seeds() -> None:
    """512 samples, 400 probes: means within 3 standard errors, and those under 1.5 %."""
    model = Regression()
    found = model.estimates(512, 400)
    for name, truth in (("signal", model.signal), ("noise", model.noise)):
        values = np.array([getattr(one, name) for one in found])
        error = values.std() / math.sqrt(len(values))
        assert error < 0.015 * truth
        assert abs(values.mean() - truth) < 3 * error, name
    scales = np.array([one.scale for one in found])
    errors = np.array([one.error for one in found])
    assert errors.mean() == pytest.approx(scales.std(), rel=0.15)


@pytest.mark.parametrize(("noise", "wide"), [(50, 200), (200, 20), (500, 20), (1000, 200)])
def test_the_scale_is_as_often_too_large_as_too_small(noise: float, wide: int) -> None:
    """512 samples, 400 probes: the median is the truth, where no gradient is seen counts as large.

    In the last two |G|^2 has 1 to 3 standard errors.
    """
    signal = np.zeros(wide)
    signal[0] = 1.0
    found = []
    for seed in range(400):
        rng = np.random.default_rng([seed, wide])
        g = signal + rng.standard_normal((512, wide)) * math.sqrt(noise / wide)
        found.append(gradient_noise(*sums(g)))
    large = np.mean([not one.scale < noise for one in found])
    assert abs(large - 0.5) < 3 * 0.5 / math.sqrt(400) + 0.03  # squares are skew
    assert all(math.isnan(one.scale) or one.scale > 0 for one in found)
    near = [abs(one.scale - noise) < 2 * one.error for one in found if one.signal > 0]
    assert np.mean(near) > 0.9


def test_the_papers_two_batch_form() -> None:
    g = Regression().gradients(np.random.default_rng(3), 64)
    small, large = float((g**2).sum(1).mean()), float((g.mean(0) ** 2).sum())
    signal = (64 * large - 1 * small) / (64 - 1)
    noise = (small - large) / (1 / 1 - 1 / 64)
    found = gradient_noise(*sums(g))
    assert found.signal == pytest.approx(signal, rel=1e-12)
    assert found.noise == pytest.approx(noise, rel=1e-12)
    assert signal_and_noise(large, 64 * small, 64) == pytest.approx((signal, noise), rel=1e-12)
    assert found.noise == pytest.approx(np.trace(np.cov(g.T)), rel=1e-12)
    assert found.norm == pytest.approx(math.sqrt(large), rel=1e-12)


def test_the_error_is_that_of_leaving_out_one_by_one() -> None:
    g = Regression(off=3.0).gradients(np.random.default_rng(4), 60)
    parts = []
    for i in range(60):
        rest = np.delete(g, i, 0)
        noise = np.trace(np.cov(rest.T))
        parts.append(((rest.mean(0) ** 2).sum() - noise / 59, noise))
    cov = 59 * np.cov(np.array(parts).T, bias=True)
    found = gradient_noise(*sums(g))
    assert found.scale == found.noise / found.signal
    variance = cov[1, 1] - 2 * found.scale * cov[0, 1] + found.scale**2 * cov[0, 0]
    assert found.error == pytest.approx(math.sqrt(variance) / found.signal, rel=1e-9)


@given(st.integers(0, 300), st.integers(3, 20))
def test_alignment_and_coherence_are_means_over_pairs(seed: int, n: int) -> None:
    g = np.random.default_rng(seed).standard_normal((n, 4)) + 0.5
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    cosine = np.mean([unit[i] @ unit[j] for i, j in pairs])
    assert alignment((unit.sum(0) ** 2).sum(), n) == pytest.approx(cosine, abs=1e-12)
    inner = np.mean([g[i] @ g[j] for i, j in pairs])
    expected = inner / (g**2).sum(1).mean()
    assert coherence(*sums(g)) == pytest.approx(expected, abs=1e-12)


def test_equal_and_opposite_gradients() -> None:
    same = np.tile([1.0, 2.0], (10, 1))
    found = gradient_noise(*sums(same))
    assert found.noise == pytest.approx(0, abs=1e-12)
    assert found.scale == pytest.approx(0, abs=1e-12)
    assert coherence(*sums(same)) == pytest.approx(1)
    opposite = np.vstack([same, -same])
    lost = gradient_noise(*sums(opposite))
    assert lost.signal < 0 and math.isnan(lost.scale) and math.isnan(lost.error)
    assert coherence(*sums(opposite)) == pytest.approx(-1 / 19)


def test_numbers_by_name() -> None:
    g = Regression().gradients(np.random.default_rng(5), 200)
    g[3] = 0  # no direction: it is left out of the mean cosine
    alive = np.delete(g, 3, 0)
    unit = alive / np.linalg.norm(alive, axis=1, keepdims=True)
    direction = float((unit.sum(0) ** 2).sum())
    found = gradient_numbers(*sums(g), direction)
    assert found["alignment"] == pytest.approx(alignment(direction, 199))
    assert found["noise_scale"] == found["critical_batch"] == gradient_noise(*sums(g)).scale
    assert found["signal_to_noise"] == pytest.approx(
        gradient_noise(*sums(g)).signal / found["variance"]
    )
    dead = gradient_numbers(np.zeros(9), np.zeros(9), 0.0)
    assert dead["norm"] == dead["variance"] == 0.0
    assert all(math.isnan(dead[name]) for name in ("noise_scale", "alignment", "coherence"))
    broken = gradient_numbers(np.full(9, np.nan), np.full(9, np.nan), math.nan)
    assert all(math.isnan(value) for value in broken.values())


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="3 samples"):
        gradient_noise(np.ones(2), np.ones(2))
    with pytest.raises(UsageError, match="3 samples"):
        gradient_noise(np.ones(4), np.ones(5))
