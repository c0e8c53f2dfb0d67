"""Single units of a layer over the probe: entropy, dead and saturated units, sparsity.

x [n, p] holds n samples of p units. Two readings, chosen by `kind`:

    pre   what a linear layer or convolution gives out, before its non-linearity (what is measured
          by default); a rectifier is assumed to follow: it is off where x <= 0
    post  the output of the non-linearity itself; it is off where |x| <= tolerance, which says
          something of relu and relu6 alone: others give small numbers where they are off, not 0

Counts are over the probe: a unit that is dead here may answer to other data.
Values that are not finite give NaN.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]

BINS = 30
_ELEMENTS = 1 << 16  # of a piece: what is worked on stays in the cache


def activation_entropy(x: Array, bins: int = BINS) -> npt.NDArray[np.float64]:
    """Entropy in bits of each unit's histogram over the probe, [p]: -sum of f_b log2 f_b.

    f_b is the share of samples in bin b of `bins` equal bins between the unit's own smallest and
    largest value: bin floor((x - min) w) with w = bins / (max - min) in float64, the largest value
    in the last. In [0, log2 bins]; 0 for a unit that gives one value only. It does not change with
    a unit's offset or positive scale. Not a differential entropy, nor comparable between numbers
    of samples: with n it is at most log2 n.
    """
    x = _matrix(x)
    if not 2 <= bins <= 1 << 16:
        raise UsageError(f"bins={bins}: expected 2 to 65536")
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    found = _information(len(x))[_histograms(x, low, high, bins)].sum(1)
    found[~np.isfinite(low + high)] = np.nan
    return found


def dead_share(x: Array, kind: str = "pre", tolerance: float = 0.0) -> float:
    """Share of units that are off for every sample of the probe (see `kind` above)."""
    x = _matrix(x)
    if not _finite(x):
        return float("nan")
    highest = x.max(0)
    if _post(kind):
        return float(((highest <= tolerance) & (x.min(0) >= -tolerance)).mean())
    return float((highest <= 0).mean())


def saturated_share(
    x: Array,
    kind: str = "pre",
    bounds: tuple[float, float] = (-1.0, 1.0),
    margin: float = 0.05,
    limit: float = 3.0,
    share: float = 0.95,
) -> float:
    """Share of units that sit in a flat end of their non-linearity for most of the probe.

    A sample saturates a unit, pre: |x| >= limit (tanh(3) = 0.995, the logistic function 0.953);
    post: x is within `margin` of the distance between `bounds` from one of them ((-1, 1) for tanh,
    (0, 1) for the logistic function). A unit is saturated where at least `share` of the samples
    do. It says nothing about units whose non-linearity has no flat ends, such as rectifiers.
    """
    x = _matrix(x)
    if not _finite(x):
        return float("nan")
    middle, reach = 0.0, limit
    if _post(kind):
        low, high = bounds
        middle, reach = (low + high) / 2, (high - low) * (0.5 - margin)
    # Two comparisons need no copy of the matrix.
    flat = np.count_nonzero((x >= middle + reach) | (x <= middle - reach), axis=0)
    return float((flat >= share * len(x)).mean())


def sparsity(x: Array, kind: str = "pre", tolerance: float = 0.0) -> float:
    """Share of entries of the whole matrix that are off (see `kind` above)."""
    x = _matrix(x)
    if not _finite(x):
        return float("nan")
    on = (x > tolerance) | (x < -tolerance) if _post(kind) else x > 0
    return 1.0 - float(np.count_nonzero(on)) / x.size


def _histograms(x: Array, low: Array, high: Array, bins: int) -> npt.NDArray[np.intp]:
    """Counts [p, bins] of each column; a column that is constant or not finite in bin 0."""
    n, p = x.shape
    with np.errstate(invalid="ignore", over="ignore"):
        span = high - low
    usable = np.isfinite(span) & (span > 0)
    width = np.divide(bins, span, out=np.zeros(p), where=usable)
    least = np.where(usable, low, 0.0)
    # The largest value falls in a bin of its own, which is then joined to the last.
    first = np.arange(0, (bins + 1) * p, bins + 1)
    total = np.zeros((bins + 1) * p, np.intp)
    step = max(1, min(n, _ELEMENTS // p))
    wide, place = np.empty((step, p)), np.empty((step, p), np.intp)
    for begin in range(0, n, step):
        count = min(step, n - begin)
        values, places = wide[:count], place[:count]
        values[...] = x[begin : begin + count]
        if not usable.all():
            values[:, ~usable] = 0.0
        values -= least
        values *= width
        np.copyto(places, values, casting="unsafe")
        places += first
        total += np.bincount(places.ravel(), minlength=len(total))
    counts = total.reshape(p, bins + 1)
    counts[:, -2] += counts[:, -1]
    return counts[:, :-1]


def _information(n: int) -> npt.NDArray[np.float64]:
    """-f log2 f for every count 0 .. n."""
    share = np.arange(n + 1) / n
    return -share * np.log2(share, out=np.zeros(n + 1), where=share > 0)


def _matrix(x: Array) -> Array:
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise UsageError(f"expected a matrix of samples and units, got shape {x.shape}")
    return x


def _post(kind: str) -> bool:
    if kind not in ("pre", "post"):
        raise UsageError(f"kind {kind!r} is not known", remedy="pre or post")
    return kind == "post"


def _finite(x: Array) -> bool:
    return bool(np.isfinite(x.sum(dtype=np.float64)))
