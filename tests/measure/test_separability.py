"""The ridge probe against scikit-learn's on the same folds; Fisher's from scatter matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.measure.separability import fisher_ratio, ridge_accuracy


def clouds(seed: int, n: int, p: int, classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    means = rng.standard_normal((classes, p)) * apart
    return rng.standard_normal((n, p)) + means[labels] + 2.0, labels


def folds_of(labels: np.ndarray, count: int) -> np.ndarray:
    """The rule in words: counted on from class to class."""
    fold = np.empty(len(labels), int)
    seen = 0
    for name in np.unique(labels):
        for i in np.flatnonzero(labels == name):
            fold[i] = seen % count
            seen += 1
    return fold


SIZES = [(200, 10, 5, 0.6), (200, 10, 2, 0.3), (90, 300, 4, 0.1), (100, 80, 3, 0.1), (96, 77, 3, 0)]


@pytest.mark.parametrize(("n", "p", "classes", "apart"), SIZES)
@pytest.mark.parametrize("strength", [1e-6, 0.01, 3.0])
def test_scikit_learns_classifier(
    n: int, p: int, classes: int, apart: float, strength: float
) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, labels = clouds(n + p, n, p, classes, apart)
    fold = folds_of(labels, 5)
    right = 0
    for part in range(5):
        train, test = fold != part, fold == part
        centred = x[train] - x[train].mean(0)
        alpha = strength * (centred**2).sum() / min(centred.shape)
        peer = linear.RidgeClassifier(alpha=alpha).fit(x[train], labels[train])
        right += (peer.predict(x[test]) == labels[test]).sum()
    assert ridge_accuracy(x, labels, 5, strength) == right / n


def test_least_squares_oracle() -> None:
    x, labels = clouds(1, 150, 12, 3, 0.4)
    fold = folds_of(labels, 4)
    right = 0
    for part in range(4):
        train = fold != part
        mean = x[train].mean(0)
        a = 0.2 * ((x[train] - mean) ** 2).sum() / 12
        targets = np.eye(3)[labels[train]]
        tall = np.vstack([x[train] - mean, math.sqrt(a) * np.eye(12)])
        goal = np.vstack([targets - targets.mean(0), np.zeros((12, 3))])
        weights = np.linalg.lstsq(tall, goal, rcond=None)[0]
        scores = (x[~train] - mean) @ weights + targets.mean(0)
        right += (scores.argmax(1) == labels[~train]).sum()
    assert ridge_accuracy(x, labels, 4, 0.2) == right / 150


@pytest.mark.parametrize("p", [12, 200])
def test_invariances(p: int) -> None:
    x, labels = clouds(3, 120, p, 4, 0.3)
    one = ridge_accuracy(x, labels)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((p, p)))
    assert ridge_accuracy(1e4 * (x @ rotation) + 5, labels) == one
    assert ridge_accuracy(x.astype(np.float32), 10 * labels + 3) == one
    assert fisher_ratio(1e4 * (x @ rotation) + 5, labels) == pytest.approx(
        fisher_ratio(x, labels), rel=1e-9
    )


def test_known_answers() -> None:
    x, labels = clouds(4, 300, 20, 5, 50.0)
    assert ridge_accuracy(x, labels) == 1.0
    rng = np.random.default_rng(5)
    blind = rng.standard_normal((2000, 5))
    # Chance is 1/4: five standard deviations of a share of 2000.
    assert ridge_accuracy(blind, rng.integers(0, 4, 2000)) == pytest.approx(0.25, abs=0.05)
    assert ridge_accuracy(np.ones((40, 3)), np.arange(40) % 2) == 0.5


@pytest.mark.parametrize("p", [60, 600])
def test_rows_of_one_sample_are_left_out_together(p: int) -> None:
    """A vector per sequence says which sequence it is, and nothing of a label drawn for it."""
    rng = np.random.default_rng(6)
    samples = np.repeat(np.arange(60), 8)
    x = rng.standard_normal((60, p))[samples] + 0.3 * rng.standard_normal((480, p))
    labels = rng.integers(0, 2, 60)[samples]
    assert ridge_accuracy(x, labels) > 0.7
    # Chance is 1/2: three standard deviations of a share of 60.
    assert ridge_accuracy(x, labels, samples=samples) < 0.5 + 3 * 0.5 / math.sqrt(60)
    kept = rng.random(480) < 0.8
    marked = np.where(kept, labels, -1)
    assert ridge_accuracy(x, marked, samples=samples) == ridge_accuracy(
        x[kept], labels[kept], samples=samples[kept]
    )
    with pytest.raises(RefusedError, match="4 labelled samples are too few"):
        ridge_accuracy(x[:32], np.arange(32) % 2, samples=samples[:32])


@pytest.mark.parametrize(("n", "p"), [(80, 6), (30, 60)])
def test_fisher_ratio_of_scatter_matrices(n: int, p: int) -> None:
    x, labels = clouds(7, n, p, 4, 0.7)
    within, between = np.zeros((p, p)), np.zeros((p, p))
    for name in range(4):
        part = x[labels == name]
        centred = part - part.mean(0)
        within += centred.T @ centred
        offset = part.mean(0) - x.mean(0)
        between += len(part) * np.outer(offset, offset)
    assert fisher_ratio(x, labels) == pytest.approx(np.trace(between) / np.trace(within), rel=1e-12)


def test_fisher_ratio_of_known_points() -> None:
    x = np.array([[-3.0], [-1.0], [1.0], [3.0]])
    assert fisher_ratio(x, np.array([0, 0, 1, 1])) == pytest.approx(4.0)  # means -2, 2; spread 1
    assert fisher_ratio(x, np.array([0, 1, 1, 0])) == pytest.approx(0.0)
    assert math.isnan(fisher_ratio(np.array([[1.0], [1.0], [2.0]]), np.array([0, 0, 1])))


def test_labels_that_do_not_count() -> None:
    x, labels = clouds(8, 100, 6, 3, 0.5)
    more = np.vstack([x, np.full((9, 6), 1e9)])
    marked = np.r_[labels, np.full(9, -100)]
    assert ridge_accuracy(more, marked) == ridge_accuracy(x, labels)
    assert fisher_ratio(more, marked) == fisher_ratio(x, labels)


def test_what_cannot_be_told() -> None:
    x, labels = clouds(9, 40, 6, 3, 0.5)
    for measure in (ridge_accuracy, fisher_ratio):
        with pytest.raises(RefusedError, match="two classes"):
            measure(x, np.zeros(40, int))
        with pytest.raises(UsageError, match="belong together"):
            measure(x, labels[:-1])
        broken = x.copy()
        broken[3, 3] = np.inf
        assert math.isnan(measure(broken, labels))
    with pytest.raises(RefusedError, match="folds"):
        ridge_accuracy(x[:4], np.array([0, 1, 0, 1]))
    with pytest.raises(UsageError, match="folds"):
        ridge_accuracy(x, labels, folds=1)
