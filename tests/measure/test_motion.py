"""Motion against direct formulas, at 1e-9."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.errors import UsageError
from ndt_offline.measure.motion import (
    distance,
    effective_rate,
    motion,
    relative_update,
    update_cosine,
    update_norm,
)


def trajectory(seed: int, shape: tuple[int, ...], dtype: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((4, *shape)) * np.array([1, 0.1, 0.05, 0.02]).reshape(
        -1, *[1] * len(shape)
    )
    return list(np.cumsum(steps, 0).astype(dtype))


@pytest.mark.parametrize("shape", [(1,), (7,), (130, 257), (8, 3, 5, 5), (32768,), (32769,)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_direct_formulas(shape: tuple[int, ...], dtype: type) -> None:
    start, before2, before, w = trajectory(1, shape, dtype)
    exact = [math.fsum(v) for v in _squares(w, before, before2, start)]
    size, held, last, turn, away = exact
    found = motion(w, before, before2, start)
    assert found.update_norm == pytest.approx(math.sqrt(size), rel=1e-9)
    assert found.relative_update == pytest.approx(math.sqrt(size / held), rel=1e-9)
    assert found.distance == pytest.approx(math.sqrt(away), rel=1e-9)
    assert found.update_cosine == pytest.approx(turn / math.sqrt(size * last), abs=1e-9)
    assert update_norm(w, before) == found.update_norm
    assert relative_update(w, before) == found.relative_update
    assert distance(w, start) == found.distance
    assert update_cosine(w, before, before2) == found.update_cosine


def _squares(*states: np.ndarray) -> list[list[float]]:
    w, before, before2, start = ([float(v) for v in state.reshape(-1)] for state in states)
    rows = list(zip(w, before, before2, start, strict=True))
    return [
        [(a - b) ** 2 for a, b, _, _ in rows],
        [b * b for _, b, _, _ in rows],
        [(b - c) ** 2 for _, b, c, _ in rows],
        [(a - b) * (b - c) for a, b, c, _ in rows],
        [(a - d) ** 2 for a, _, _, d in rows],
    ]


def test_known_triangle() -> None:
    start, right, corner = np.array([0.0, 0.0]), np.array([3.0, 0.0]), np.array([3.0, 4.0])
    found = motion(corner, right, start, start)
    assert (found.update_norm, found.distance, found.update_cosine) == (4.0, 5.0, 0.0)
    assert found.relative_update == pytest.approx(4 / 3)
    assert update_cosine(2 * right, right, start) == 1.0
    assert update_cosine(start, right, start) == -1.0


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_scaling(seed: int, scale: float) -> None:
    states = trajectory(seed, (5, 6), np.float64)
    one = motion(states[3], states[2], states[1], states[0])
    s = [scale * state for state in states]
    other = motion(s[3], s[2], s[1], s[0])
    assert other.update_norm == pytest.approx(scale * one.update_norm, rel=1e-9)
    assert other.relative_update == pytest.approx(one.relative_update, rel=1e-9)
    assert other.update_cosine == pytest.approx(one.update_cosine, abs=1e-9)


def test_undefined_is_nan() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert math.isnan(relative_update(one, zero))
    assert math.isnan(update_cosine(one, one, zero))
    assert math.isnan(effective_rate(one, zero))
    assert update_norm(one, one) == 0.0
    assert math.isnan(motion(one, zero).distance)
    assert math.isnan(motion(one, zero).update_cosine)
    for bad in (np.nan, np.inf):
        broken = np.array([bad, 1.0, 1.0])
        assert math.isnan(update_norm(broken, one))
        assert math.isnan(relative_update(one, broken))
    assert math.isnan(update_norm(np.array([np.inf]), np.array([np.inf])))


def test_tiny_updates_keep_their_cosine() -> None:
    base = np.zeros(4)
    assert update_cosine(base + 3e-200, base + 1e-200, base) == pytest.approx(1.0) or math.isnan(
        update_cosine(base + 3e-200, base + 1e-200, base)
    )
    assert update_cosine(base + 3e-100, base + 1e-100, base) == pytest.approx(1.0)


def test_gradient_descent_has_its_learning_rate() -> None:
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal((6, 7))
    assert effective_rate(-0.03 * gradient, gradient) == pytest.approx(0.03, rel=1e-12)
    assert effective_rate(5 * 0.03 * 2.0, 2.0, updates=5) == pytest.approx(0.03)
    with pytest.raises(UsageError, match="updates"):
        effective_rate(1.0, 1.0, updates=0)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="shapes"):
        motion(np.zeros((2, 3)), np.zeros((3, 2)))
