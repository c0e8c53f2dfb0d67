"""Linear CKA against the formula with an explicit centring matrix, at 1e-9."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.errors import UsageError
from ndt_offline.measure.similarity import (
    cheaper_form,
    hold,
    linear_cka,
    similarity,
    similarity_matrix,
)


def direct(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = x x', L = y y' and H = I - 1 1' / n."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, other = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
    return float(np.sum(k * other) / math.sqrt(np.sum(k * k) * np.sum(other * other)))


def pair(seed: int, n: int, p: int, q: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) + shift * rng.standard_normal(p)
    y = 0.5 * x @ rng.standard_normal((p, q)) + rng.standard_normal((n, q))
    return x, y


@pytest.mark.parametrize(
    ("n", "p", "q"), [(40, 5, 3), (31, 60, 7), (30, 7, 60), (24, 80, 90), (2, 3, 3), (33, 1, 1)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_direct_formula_in_both_forms(n: int, p: int, q: int, dtype: type) -> None:
    x, y = (a.astype(dtype) for a in pair(1, n, p, q))
    expected = direct(x, y)
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-9)
    for form in ("features", "samples"):
        found = similarity(hold(x, form), hold(y, form))
        assert found == pytest.approx(expected, abs=1e-9), form


def test_large_means_do_not_matter() -> None:
    x, y = pair(2, 50, 6, 6)
    assert linear_cka(x + 1e6, y - 1e5) == pytest.approx(direct(x, y), abs=1e-9)


@given(st.integers(0, 500), st.floats(1e-3, 1e3), st.sampled_from(["features", "samples"]))
def test_invariances(seed: int, scale: float, form: str) -> None:
    x, y = pair(seed, 20, 6, 4)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))
    moved = scale * (x @ rotation) + 3.0
    one = similarity(hold(x, form), hold(y, form))
    assert similarity(hold(moved, form), hold(y, form)) == pytest.approx(one, abs=1e-9)
    assert similarity(hold(y, form), hold(x, form)) == pytest.approx(one, abs=1e-12)
    assert similarity(hold(x, form), hold(moved, form)) == pytest.approx(1.0, abs=1e-9)
    assert 0.0 <= one <= 1.0


def test_closed_forms() -> None:
    wave = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    sine, cosine = np.sin(wave)[:, None], np.cos(wave)[:, None]
    assert linear_cka(sine, cosine) == pytest.approx(0.0, abs=1e-12)
    # One of two orthogonal directions of equal size: 1 / (1 * sqrt 2).
    assert linear_cka(sine, np.hstack([sine, cosine])) == pytest.approx(1 / math.sqrt(2), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-120, 1e-30, 1e30, 1e120])
def test_extreme_scales(scale: float) -> None:
    x, y = pair(3, 30, 5, 40)
    assert linear_cka(scale * x, y) == pytest.approx(direct(x, y), abs=1e-9)


@pytest.mark.parametrize("form", ["features", "samples"])
def test_constant_activations_have_no_similarity(form: str) -> None:
    x, _ = pair(4, 30, 5, 5)
    for dead in (np.zeros((30, 3)), np.full((30, 3), 0.1), np.tile([0.1, 1e8, -7.3], (30, 1))):
        assert math.isnan(similarity(hold(dead, form), hold(x, form)))
        assert math.isnan(linear_cka(x, dead))
    for bad in (np.nan, np.inf):
        broken = x.copy()
        broken[3, 2] = bad
        assert math.isnan(similarity(hold(broken, form), hold(x, form)))


def test_matrix_of_layers() -> None:
    x, y = pair(5, 25, 4, 9)
    z = np.random.default_rng(6).standard_normal((25, 30))
    found = similarity_matrix([x, y, z])
    for i, a in enumerate((x, y, z)):
        for j, b in enumerate((x, y, z)):
            assert found[i, j] == pytest.approx(direct(a, b), abs=1e-9)


def test_the_held_form_depends_on_the_shape_and_saves_memory() -> None:
    assert cheaper_form(512, 10) == "features"
    assert cheaper_form(512, 256) == "samples"
    assert cheaper_form(16384, 256) == "features"
    assert hold(np.ones((512, 256)) + np.eye(512, 256)).nbytes <= 4 * 512 * 514 + 8 * 512


def test_matrices_that_do_not_fit_are_refused() -> None:
    x, y = pair(7, 20, 4, 4)
    with pytest.raises(UsageError, match="samples"):
        linear_cka(x, y[:-1])
    with pytest.raises(UsageError, match="forms"):
        similarity(hold(x, "features"), hold(y, "samples"))
    with pytest.raises(UsageError, match="not known"):
        hold(x, "rows")
    with pytest.raises(UsageError, match="matrix"):
        hold(np.zeros(3))
