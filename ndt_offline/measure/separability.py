"""Separability: how well a linear reading of a layer tells the probe's classes apart.

x [n, p] is a layer's matrix over the probe, labels [n] its classes; negative labels do not count.
Both are properties of the probe: with few samples per class against many features a layer can
separate what it never learned, so compare steps of one layer, or with shuffled labels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import RefusedError, UsageError

Array: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.intp]


def ridge_accuracy(
    x: Any, labels: Any, folds: int = 5, strength: float = 0.01, samples: Any = None
) -> float:
    """Share of the probe that a ridge classifier gets right, each sample by a fit without it.

    In each of `folds` parts left out, with centred training rows X [m, p] and centred one-hot
    targets Y [m, classes]: W = (X' X + a I)^-1 X' Y, or X' (X X' + a I)^-1 Y where that is the
    smaller system; the answer is the class of the largest score. a = strength |X|_F^2 / min(m, p),
    a share of the mean eigenvalue, so that the scale of the activations does not matter. The i-th
    sample of a class is in fold i modulo `folds`, counted on from class to class: the same in
    every call. samples [n]: which sample each row is of, where it has several (tokens); they are
    left out together, the i-th sample in fold i. Linear probes: Alain and Bengio,
    arXiv:1610.01644; feature formation.

    NaN where values are not finite. RefusedError with one class, or fewer samples than folds.
    """
    counted = np.asarray(labels) >= 0
    x, classes = _checked(x, labels)
    if folds < 2 or strength <= 0:
        raise UsageError(f"folds={folds}, strength={strength}: expected 2 or more, and above 0")
    fold = _ranks(classes) if samples is None else _numbers(np.asarray(samples)[counted])
    if fold.max() + 1 < folds:
        raise RefusedError(f"{fold.max() + 1} labelled samples are too few for {folds} folds")
    if not np.isfinite(x.sum()):
        return float("nan")
    fold = fold % folds
    products = _products(x, folds)
    right = sum(_right(x, products, classes, fold == part, strength) for part in range(folds))
    return float(right) / len(x)


def fisher_ratio(x: Any, labels: Any) -> float:
    """tr S_B / tr S_W: spread of the class means over the spread within classes, per sample.

    S_B = sum_c n_c (m_c - m)(m_c - m)' / n, S_W = sum_c sum_(i in c) (x_i - m_c)(x_i - m_c)' / n.
    0 where all classes have one mean; infinite, given as NaN, where each class is one point.
    Multi-class form of Fisher (1936); unchanged by rotation, offset and common scale. RefusedError
    with one class.
    """
    x, classes = _checked(x, labels)
    if not np.isfinite(x.sum()):
        return float("nan")
    x = x - x.mean(0)
    count = np.bincount(classes)
    means = _one_hot(classes).T @ x / count[:, None]
    between = float(count @ np.einsum("ij,ij->i", means, means))
    x -= means[classes]
    within = float(np.vdot(x, x))
    # What rounding leaves of a point is no spread.
    return between / within if within > 1e-24 * between else float("nan")


def _checked(x: Any, labels: Any) -> tuple[Array, Labels]:
    """Labelled rows in float64, and their classes 0, 1, ..."""
    x, labels = np.asarray(x), np.asarray(labels)
    if x.ndim != 2 or labels.ndim != 1 or len(x) != len(labels):
        raise UsageError(f"rows {x.shape} and labels {labels.shape} do not belong together")
    counted = labels >= 0
    names, classes = np.unique(labels[counted], return_inverse=True)
    if len(names) < 2:
        raise RefusedError("separability needs samples of two classes or more")
    return x[counted].astype(np.float64), classes


def _numbers(samples: Any) -> Labels:
    """Samples as 0, 1, ... in their order."""
    found: Labels = np.unique(samples, return_inverse=True)[1]
    return found


def _ranks(classes: Labels) -> Labels:
    """Position of each sample when they are ordered by class, then by appearance."""
    ranks = np.empty(len(classes), np.intp)
    ranks[np.argsort(classes, kind="stable")] = np.arange(len(classes))
    return ranks


def _products(x: Array, folds: int) -> Array | None:
    """X X' of all rows where the folds will use the dual, which takes its parts; else None."""
    training = len(x) - -(-len(x) // folds)  # about: samples may have different numbers of rows
    x -= x.mean(0)  # changes no fold's result, and keeps rounding small
    return x @ x.T if training < x.shape[1] else None


def _right(
    x: Array,
    products: Array | None,
    classes: Labels,
    left_out: npt.NDArray[np.bool_],
    strength: float,
) -> int:
    """How many of the rows left out get their own class."""
    targets = _one_hot(classes)[~left_out]
    offset = targets.mean(0)
    targets = targets - offset
    if products is None:
        scores = _primal(x[~left_out], x[left_out], targets, strength)
    else:
        among = products[np.ix_(~left_out, ~left_out)]
        across = products[np.ix_(left_out, ~left_out)]
        scores = _dual(among, across, targets, strength)
    return int(np.count_nonzero((scores + offset).argmax(1) == classes[left_out]))


def _primal(train: Array, test: Array, targets: Array, strength: float) -> Array:
    mean = train.mean(0)
    train = train - mean
    gram = train.T @ train
    weights = _solve(gram, train.T @ targets, strength * np.trace(gram) / min(train.shape))
    return (test - mean) @ weights


def _dual(among: Array, across: Array, targets: Array, strength: float) -> Array:
    """The same from inner products: centring is a matter of their means."""
    mean = among.mean(0)
    gram = among - mean - mean[:, None] + mean.mean()
    cross = across - across.mean(1, keepdims=True) - mean + mean.mean()
    return cross @ _solve(gram, targets, strength * np.trace(gram) / len(gram))


def _solve(gram: Array, right: Array, ridge: float) -> Array:
    from scipy.linalg import lapack

    if ridge <= 0:  # constant training rows: nothing tells the classes apart
        return np.zeros_like(right)
    gram[np.diag_indices_from(gram)] += ridge
    _, solution, failed = lapack.dposv(gram, right, lower=1)
    return np.zeros_like(right) if failed else solution


def _one_hot(classes: Labels) -> Array:
    return np.eye(int(classes.max()) + 1)[classes]
