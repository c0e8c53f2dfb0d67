"""Smooth drifts without a step, each a function `(n) -> [n]` rising or falling by about 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ndt_offline.detect.transition import Array

Drift = Callable[[int], Array]


def flat(n: int) -> Array:
    """No drift."""
    return np.zeros(n)


def line(n: int) -> Array:
    """A straight line from 0 to 1."""
    return np.arange(n) / n


def decays(n: int) -> Array:
    """Exponential decays with three time constants (n/80, n/16, n/4), as losses have."""
    t = np.arange(n) / n
    return (np.exp(-80 * t) + np.exp(-16 * t) + np.exp(-4 * t)) / 3


def sigmoid(n: int) -> Array:
    """A logistic rise between two plateaus; 10 to 90 % takes 4.4 n/20 points."""
    return 1 / (1 + np.exp(-(np.arange(n) / n - 0.5) * 20))


def ramp(n: int) -> Array:
    """A straight ramp of n/4 points (400 of 1600) between two plateaus."""
    return np.clip((np.arange(n) / n - 0.375) * 4, 0, 1)


DRIFTS: dict[str, Drift] = {
    "flat": flat,
    "line": line,
    "decays": decays,
    "sigmoid": sigmoid,
    "ramp": ramp,
}
