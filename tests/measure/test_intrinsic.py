"""TwoNN and MLE against scikit-dimension, the formulas, and manifolds of known dimension."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.measure.intrinsic import (
    mle_dimension,
    neighbour_distances,
    two_nn,
)

SLOW = os.environ.get("NDT_SLOW") == "1"


def ball(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return sphere(rng, n, d - 1) * rng.random((n, 1)) ** (1 / d)


def sphere(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gaussian(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.standard_normal((n, d))


def embedded(rng: np.random.Generator, x: np.ndarray, width: int) -> np.ndarray:
    """The same points, rotated into a space of more dimensions, off its origin."""
    frame, _ = np.linalg.qr(rng.standard_normal((width, x.shape[1])))
    return x @ frame.T + 3.0


def all_distances(x: np.ndarray, k: int) -> np.ndarray:
    """The oracle: every distance from its differences, sorted."""
    x = x.astype(np.float64)
    rows = [np.sort(np.sqrt(((x - row) ** 2).sum(1)))[1 : k + 1] for row in x]
    return np.array(rows)


CLOUDS = [(300, 3), (500, 24), (512, 60), (700, 2)]


@pytest.mark.parametrize(("n", "p"), CLOUDS)
def test_scikit_dimensions_values(n: int, p: int) -> None:
    peer = pytest.importorskip("skdim.id")
    x = np.random.default_rng(n).standard_normal((n, p))
    for discard in (0.1, 0.3):
        expected = peer.TwoNN(discard_fraction=discard).fit_transform(x)
        assert two_nn(x, discard) == pytest.approx(expected, rel=1e-6)
    for k in (5, 20):
        expected = peer.MLE().fit_transform(x, n_neighbors=k, comb="mle")
        assert mle_dimension(x, k) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "p"), CLOUDS)
def test_the_formulas(n: int, p: int) -> None:
    x = np.random.default_rng(n + 1).standard_normal((n, p)).astype(np.float32)
    r = all_distances(x, 20)
    ratios = sorted(float(second / first) for first, second in r[:, :2])
    kept = int(n * 0.9)
    xs = [math.log(ratio) for ratio in ratios[:kept]]
    ys = [-math.log(1 - (i + 1) / n) for i in range(kept)]
    slope = np.linalg.lstsq(np.array(xs)[:, None], np.array(ys), rcond=None)[0][0]
    assert two_nn(x) == pytest.approx(slope, rel=1e-9)
    local = [19 / sum(math.log(row[-1] / other) for other in row[:-1]) for row in r]
    assert mle_dimension(x) == pytest.approx(1 / np.mean([1 / m for m in local]), rel=1e-9)


@pytest.mark.parametrize("memory", [1, 40_000, 1 << 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_are_exact_in_any_memory(memory: int, dtype: type) -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((310, 12)).astype(dtype)
    x[7] = x[8] + np.float32(1e-6)  # the large offset would drown it in a product of vectors
    x += 100
    found = neighbour_distances(x, 6, memory)
    assert found == pytest.approx(all_distances(x, 6), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scale_does_not_matter(scale: float) -> None:
    x = np.random.default_rng(9).standard_normal((300, 5))
    assert two_nn(scale * x) == pytest.approx(two_nn(x), rel=1e-9)
    assert mle_dimension(scale * x) == pytest.approx(mle_dimension(x), rel=1e-9)


@cache
def mean_shares(kind: Callable[..., np.ndarray], d: int) -> tuple[float, float]:
    """What TwoNN and MLE find of the true dimension, mean over draws of 2000 points."""
    found = []
    for seed in range(8 if SLOW else 2):
        rng = np.random.default_rng([d, seed])
        r = neighbour_distances(embedded(rng, kind(rng, 2000, d), d + 20), 20)
        found.append((two_nn(r, distances=r) / d, mle_dimension(r, distances=r) / d))
    first, second = np.mean(found, 0)
    return float(first), float(second)


ROUND = [(kind, d) for kind in (sphere, gaussian) for d in (2, 5, 8)]


@pytest.mark.parametrize(
    ("kind", "d"), [*ROUND, (sphere, 10), (gaussian, 10), (ball, 5), (ball, 8)]
)
def test_two_nn_on_known_manifolds(kind: Callable[..., np.ndarray], d: int) -> None:
    assert mean_shares(kind, d)[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("kind", "d"), [*ROUND, (ball, 5)])
def test_mle_on_known_manifolds(kind: Callable[..., np.ndarray], d: int) -> None:
    assert mean_shares(kind, d)[1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("kind", "d"), [(ball, 15), (sphere, 20), (gaussian, 20)])
def test_high_dimensions_are_underestimated_as_stated(
    kind: Callable[..., np.ndarray], d: int
) -> None:
    two, most_likely = mean_shares(kind, d)
    assert 0.75 < two < 0.93
    assert 0.70 < most_likely < 0.86


def test_a_curved_line_has_dimension_one() -> None:
    t = np.random.default_rng(1).random(1000)[:, None] * 6
    x = np.hstack([np.sin(t * k) for k in range(1, 8)] + [np.cos(t * k) for k in range(1, 8)])
    assert two_nn(x) == pytest.approx(1, abs=0.1)
    assert mle_dimension(x) == pytest.approx(1, abs=0.1)


def test_duplicates_are_dropped_and_counted() -> None:
    x = np.random.default_rng(2).standard_normal((400, 4))
    doubled = np.vstack([x, x[:30], x[:10]])
    r = neighbour_distances(doubled, 20)
    assert np.count_nonzero(r[:, 0] == 0) == 30 + 30 + 10
    alive = all_distances(doubled, 20)[30:400]
    ratios = np.sort(alive[:, 1] / alive[:, 0])[: int(370 * 0.9)]
    ys = -np.log(1 - np.arange(1, len(ratios) + 1) / 370)
    expected = np.linalg.lstsq(np.log(ratios)[:, None], ys, rcond=None)[0][0]
    assert two_nn(doubled) == pytest.approx(expected, rel=1e-9)
    assert two_nn(doubled, distances=r) == two_nn(doubled)
    assert mle_dimension(doubled, distances=r) == mle_dimension(doubled)
    assert mle_dimension(doubled) == pytest.approx(4, rel=0.15)


def test_nothing_to_estimate_is_nan() -> None:
    same = np.ones((300, 5))
    assert math.isnan(two_nn(same))
    assert math.isnan(mle_dimension(same))
    broken = np.random.default_rng(3).standard_normal((300, 5))
    broken[17, 2] = np.nan
    assert math.isnan(two_nn(broken))
    assert math.isnan(mle_dimension(broken))


def test_few_rows_are_refused_by_name() -> None:
    x = np.random.default_rng(4).standard_normal((299, 5))
    for estimate in (two_nn, mle_dimension):
        with pytest.raises(RefusedError, match="299 rows"):
            estimate(x)
    x = np.random.default_rng(4).standard_normal((300, 5))
    assert math.isfinite(two_nn(x)) and math.isfinite(mle_dimension(x))
    with pytest.raises(UsageError, match="neighbours"):
        mle_dimension(x, neighbours=300)
    with pytest.raises(UsageError, match="2 are needed"):
        two_nn(x, distances=neighbour_distances(x, 1))
    with pytest.raises(UsageError, match="discard"):
        two_nn(x, discard=1.0)
