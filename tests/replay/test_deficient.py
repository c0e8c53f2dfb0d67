"""The values that a Gram matrix loses: rank-deficient, graded and faint, against a float64 SVD."""

from __future__ import annotations

import numpy as np
import pytest

from ndt_offline.replay import deficient, spectra
from ndt_offline.replay.spectra import RANK_FIRST, singular_values
from ndt_offline.replay.workspace import SHORTEST, Workspace


def errors(matrix: np.ndarray, work: Workspace | None = None) -> tuple[float, float]:
    """Largest error over s1, and largest relative error of the values from 1e-4 s1 on."""
    exact = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    found = singular_values(matrix, work)
    assert found.shape == exact.shape and (np.diff(found) <= 0).all()
    large = exact >= 1e-4 * exact[0]
    return np.abs(found - exact).max() / exact[0], np.abs(found[large] / exact[large] - 1).max()


def assert_accurate(matrix: np.ndarray) -> None:
    absolute, relative = errors(matrix)
    assert absolute <= 1e-9 and relative <= 1e-6


def widening(rows: int, inside: int, columns: int, bias: float, seed: int = 0) -> np.ndarray:
    """The float32 output of a linear layer that widens: rank `inside` + 1 and its rounding."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, inside)).astype(np.float32)
    weight = rng.normal(size=(inside, columns)).astype(np.float32)
    return hidden @ weight + np.float32(bias) * rng.normal(size=columns).astype(np.float32)


@pytest.mark.parametrize("bias", [0.0, 1.0, 30.0])
@pytest.mark.parametrize(
    ("rows", "inside", "columns"), [(900, 64, RANK_FIRST + 20), (700, 30, 200), (300, 20, 900)]
)
def test_a_layer_that_widens(rows: int, inside: int, columns: int, bias: float) -> None:
    assert_accurate(widening(rows, inside, columns, bias))


def test_a_layer_that_widens_needs_no_qr(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("QR, which is slow, for a spectrum with a gap")

    monkeypatch.setattr(spectra, "triangle_values", never)
    assert_accurate(widening(900, 64, RANK_FIRST + 20, 1.0))
    assert_accurate(widening(700, 30, 200, 1.0))


def test_the_gram_matrix_alone_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = widening(700, 30, 200, 30.0)
    monkeypatch.setattr(spectra, "trusted_share", lambda side: 0.0)
    assert errors(matrix)[0] > 1e-9


def graded(values: np.ndarray, rows: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(rows, len(values))))
    v, _ = np.linalg.qr(rng.normal(size=(len(values), len(values))))
    return (u * values) @ v.T


@pytest.mark.parametrize("side", [60, RANK_FIRST + 6])
@pytest.mark.parametrize("decay", [3.0, 6.0, 9.0, 15.0])
def test_no_gap(side: int, decay: float) -> None:
    """Float64 with values down to nothing and no gap: QR."""
    assert_accurate(graded(np.logspace(0, -decay, side), 2 * side))


@pytest.mark.parametrize("side", [60, RANK_FIRST + 6])
@pytest.mark.parametrize("small", [1e-5, 1e-6, 1e-7, 1e-8, 1e-11, 1e-14])
@pytest.mark.parametrize("last", [1.0, 1e-3, 1e-5])
def test_gaps_of_every_kind(side: int, small: float, last: float) -> None:
    values = np.concatenate([np.linspace(1, last, side // 3), np.full(side - side // 3, small)])
    assert_accurate(graded(np.sort(values)[::-1], 2 * side))


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-30, 1e30, 1e150, 1e290])
def test_scales_of_a_deficient_matrix(scale: float) -> None:
    matrix = widening(700, 30, 200, 1.0).astype(np.float64)
    assert singular_values(matrix * scale) / scale == pytest.approx(
        singular_values(matrix), rel=1e-6, abs=1e-9 * np.linalg.norm(matrix, 2)
    )


def test_float32_at_the_ends_of_its_range() -> None:
    for scale in (1e-36, 1e30):
        assert_accurate(widening(700, 30, 200, 1.0) * np.float32(scale))


def test_dead_rows_and_columns_cost_no_second_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("columns of zeros are left out at once")

    monkeypatch.setattr(spectra, "numerical_rank", never)
    rng = np.random.default_rng(3)
    relu = np.maximum(rng.normal(size=(200, 60)), 0).astype(np.float32)
    relu[:, 10:30] = 0
    relu[5:50] = 0
    for matrix in (relu, relu.T, np.asfortranarray(relu)):
        assert_accurate(matrix)
        assert (singular_values(matrix)[40:] == 0).all()


def test_equal_rows_and_rank_one() -> None:
    rng = np.random.default_rng(4)
    half = rng.normal(size=(100, 30))
    assert_accurate(np.hstack([half, half]))
    assert_accurate(np.ones((500, RANK_FIRST + 3), np.float32))
    assert_accurate(np.outer(rng.normal(size=500), rng.normal(size=40)))


def test_work_arrays_change_no_value() -> None:
    """A row is the same whatever was computed before it in that process."""
    work = Workspace()
    matrices = [
        widening(700, 30, 200, 1.0),
        widening(200, 300, 150, 0.0),
        np.eye(7),
        np.ones((3, 9)),
    ]
    for _ in range(2):
        for matrix in [*matrices, *matrices[::-1]]:
            np.testing.assert_array_equal(singular_values(matrix, work), singular_values(matrix))
    held = work.nbytes
    singular_values(matrices[0], work)
    assert work.nbytes == held


def test_views_are_read_as_they_are() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(size=(4, 6, 5 * SHORTEST)).astype(np.float32)
    for view in (base[1], base[:, 2], base[0, ::2, ::3], base[2].T, base[:, ::-1, 7]):
        expected = np.linalg.svd(view.astype(np.float64), compute_uv=False)
        assert singular_values(view) == pytest.approx(expected, rel=1e-9)
        assert (base[1] == base[1].copy()).all()


def test_the_matrix_is_not_written_to() -> None:
    rng = np.random.default_rng(6)
    for dtype in (np.float32, np.float64):
        matrix = rng.normal(size=(50, 20)).astype(dtype) * dtype(1e-30)
        kept = matrix.copy()
        singular_values(matrix)
        np.testing.assert_array_equal(matrix, kept)


def test_half_precision() -> None:
    assert_accurate(np.random.default_rng(7).normal(size=(80, 30)).astype(np.float16))


def test_the_long_side_in_slices_by_qr() -> None:
    matrix = graded(np.logspace(0, -12, 20), 10_000)
    exact = np.linalg.svd(matrix, compute_uv=False)
    for way in (matrix, matrix.T):
        assert np.abs(deficient.triangle_values(way, 1.0) - exact).max() <= 1e-14
