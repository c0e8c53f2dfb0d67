"""Numbers over seeds and what they say: means with intervals, verdicts, rank correlations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Values = Sequence[float]  # one per seed


def estimate(values: Values, digits: int = 2) -> str:
    """Mean over seeds with its 95 % interval (Student's t); the value alone for one seed."""
    low, mean, high = interval(values)
    if min(values, default=-1) >= 0:
        low = max(low, 0.0)  # counts and shares; NaN stays NaN
    if max(map(abs, values), default=2) <= 1:
        low, high = max(low, -1.0), min(high, 1.0)  # shares and correlations
    if np.isnan(mean):
        return "–"
    shown = f"{mean:.{digits}f}"
    return shown if np.isnan(low) else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def signed(values: Values, digits: int) -> str:
    """The same of differences: with their sign, and no end cut off."""
    low, mean, high = interval(values)
    shown = f"{mean:+.{digits}f}"
    return shown if np.isnan(low) else f"{shown} [{low:+.{digits}f}, {high:+.{digits}f}]"


def interval(values: Values) -> tuple[float, float, float]:
    """(low, mean, high) of the mean over seeds; NaN ends for a single seed."""
    from scipy.special import stdtrit

    x = np.asarray(values, np.float64)
    mean = float(x.mean()) if len(x) else np.nan
    if len(x) < 2:
        return np.nan, mean, np.nan
    half = float(stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / len(x) ** 0.5)
    return mean - half, mean, mean + half


def judged(values: Values, low: float, high: float) -> str:
    """holds: the interval over seeds lies within low..high; does not: it lies outside."""
    a, mean, b = interval(values)
    a, b = (mean, mean) if np.isnan(a) else (a, b)
    if a >= low and b <= high:
        return "holds"
    return "does not hold" if b < low or a > high else "depends on the seed"


def smoothed(values: np.ndarray, width: int = 100) -> np.ndarray:
    """Centred mean of `width` samples, whole windows only."""
    return np.convolve(values, np.full(width, 1 / width), "valid")


def rho(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho of the samples that both have."""
    from ndt_offline.relate.ranks import spearman

    keep = np.isfinite(x) & np.isfinite(y)
    return float(spearman(np.asarray(x)[None, keep], np.asarray(y)[None, keep])[0, 0])


def lowest(rows: Sequence[np.ndarray], target: np.ndarray) -> float:
    """The most negative rho: the layer that speaks most for the article."""
    return min(rho(row, target) for row in rows)
