"""Series with no step in them: what a detector must stay silent on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ndt_offline.detect.battery.drifts import DRIFTS, Drift
from ndt_offline.detect.battery.noises import NOISES, Generator, Noise
from ndt_offline.detect.transition import Array, Steps

Null = Callable[[Generator, int], Array]


def drifting(rng: Generator, n: int, noise: Noise, drift: Drift, height: float) -> Array:
    """Noise on a drift of `height` (in units of the noise's own scale)."""
    return noise(rng, n) + height * drift(n)


def with_glitches(
    rng: Generator,
    n: int,
    noise: Noise = NOISES["white"],
    width: int = 1,
    count: int = 10,
    height: float = 15.0,
) -> Array:
    """Noise with `count` pulses of `width` points, `height` units up or down: all come back."""
    x = noise(rng, n)
    for start in rng.choice(n // 20, count, replace=False) * 20 + 8:
        x[start : start + width] += height * rng.choice((-1.0, 1.0))
    return x


def _drifting(noise: str, drift: str, height: float) -> Null:
    return partial(drifting, noise=NOISES[noise], drift=DRIFTS[drift], height=height)


NULLS: dict[str, Null] = {
    **NOISES,
    "line": _drifting("white", "line", 30.0),
    "decays": _drifting("white", "decays", 30.0),
    "decays, AR .5": _drifting("AR .5", "decays", 30.0),
    "decays, AR .9": _drifting("AR .9", "decays", 60.0),
    "sigmoid": _drifting("white", "sigmoid", 30.0),
    "ramp": _drifting("white", "ramp", 30.0),
    "ramp, AR .7": _drifting("AR .7", "ramp", 30.0),
    "glitches of 1": partial(with_glitches, width=1),
    "glitches of 2": partial(with_glitches, width=2),
    "glitches of 3": partial(with_glitches, width=3),
    "glitches of 1, AR .9": partial(with_glitches, noise=NOISES["AR .9"], width=1),
}

# Where false positives are expected above the rest, and why.
HARD: dict[str, str] = {
    "GARCH": "bursts of volatility",
    "t5 in AR .7": "heavy tails in persistent noise",
    "t5 in walk": "heavy tails in persistent noise",
    "t3 in walk": "a wild innovation of a random walk is a step: not identifiable",
}
GAUSSIAN = tuple(
    name for name in NULLS if name not in HARD and name != "t3" and not name.startswith("glitches")
)


def missing(rng: Generator, x: Array, share: float = 0.2) -> tuple[Array, Steps]:
    """The series with a share of points missing at random: values, steps."""
    kept = np.flatnonzero(rng.random(len(x)) >= share)
    return x[kept], kept


def dense_start(x: Array, dense: int = 400, every: int = 10) -> tuple[Array, Steps]:
    """Every point at first, then one in `every` (x must be long enough): values, steps."""
    steps = np.r_[np.arange(dense), np.arange(dense, len(x), every)]
    return x[steps], steps


def gaps(x: Array, count: int = 4, length: int = 60) -> tuple[Array, Steps]:
    """`count` gaps of `length` points, evenly spread: values, steps."""
    steps = np.arange(len(x))
    starts = (np.arange(1, count + 1) * len(x)) // (count + 1)
    kept = np.ones(len(x), bool)
    for start in starts.tolist():
        kept[start : start + length] = False
    return x[kept], steps[kept]
