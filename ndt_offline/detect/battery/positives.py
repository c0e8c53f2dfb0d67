"""Series with planted steps: what a detector must find."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ndt_offline.detect.battery.drifts import DRIFTS
from ndt_offline.detect.battery.noises import NOISES, Generator
from ndt_offline.detect.battery.nulls import with_glitches
from ndt_offline.detect.transition import Array, Points

Positive = Callable[[Generator, int, float], tuple[Array, Points]]
LOCAL = 50
MARGIN = 150  # a single step is at least this far from either end


@cache
def local_sigma(noise: str, n: int) -> Array:
    """SD of the noise within 50 points, along the series. [n].

    Root mean variance over 40 simulated series and windows of 50 points; the unit in which
    planted steps are stated. Stationary noise has one value, calming noise a falling one.
    """
    rng = np.random.default_rng(20)
    draws = np.stack([NOISES[noise](rng, n) for _ in range(40)])
    windows = np.lib.stride_tricks.sliding_window_view(draws, LOCAL, axis=1)[:, ::10]
    variance = windows.var(axis=2).mean(axis=0)
    if not noise.startswith("calming"):
        variance = np.full_like(variance, variance.mean())
    return np.interp(np.arange(n), np.arange(len(variance)) * 10 + LOCAL / 2, np.sqrt(variance))


def one_step(
    rng: Generator, n: int, sigmas: float, noise: str = "white", drift: str = "flat"
) -> tuple[Array, Points]:
    """One step of `sigmas` local SD, up or down, at a random place. Series, and where."""
    at = int(rng.integers(MARGIN, n - MARGIN))
    unit = local_sigma(noise, n)[at]
    x = NOISES[noise](rng, n) + 30 * DRIFTS[drift](n) * (1.0 if drift != "flat" else 0.0)
    x[at:] += sigmas * unit * rng.choice((-1.0, 1.0))
    return x, np.array([at])


def many_steps(
    rng: Generator, n: int, sigmas: float, noise: str = "white", count: int = 20, apart: int = 40
) -> tuple[Array, Points]:
    """`count` steps of random sign, at least `apart` points from one another and from the ends."""
    free = n - 2 * apart - (count - 1) * apart
    at = np.sort(rng.integers(0, free, count)) + apart + np.arange(count) * apart
    x = NOISES[noise](rng, n)
    for i in at.tolist():
        x[i:] += sigmas * local_sigma(noise, n)[i] * rng.choice((-1.0, 1.0))
    return x, at


def short_ramp(rng: Generator, n: int, sigmas: float, length: int = 6) -> tuple[Array, Points]:
    """White noise with a rise over `length` points; the place is its middle."""
    at = int(rng.integers(MARGIN, n - MARGIN))
    rise = np.clip((np.arange(n) - at) / length + 0.5, 0, 1)
    return rng.normal(size=n) + sigmas * rng.choice((-1.0, 1.0)) * rise, np.array([at])


def among_glitches(
    rng: Generator, n: int, sigmas: float, noise: str = "white"
) -> tuple[Array, Points]:
    """One step in noise that also has ten single-point glitches."""
    at = int(rng.integers(MARGIN, n - MARGIN))
    x = with_glitches(rng, n, noise=NOISES[noise])
    x[at:] += sigmas * local_sigma(noise, n)[at] * rng.choice((-1.0, 1.0))
    return x, np.array([at])


POSITIVES: dict[str, Positive] = {
    **{name: partial(one_step, noise=name) for name in NOISES},
    **{name: partial(one_step, drift=name) for name in DRIFTS if name != "flat"},
    "decays, AR .5": partial(one_step, noise="AR .5", drift="decays"),
    "short ramp": short_ramp,
    "among glitches": among_glitches,
    "20 steps": many_steps,
}

# Noises in which a step of 4 local SD is at the limit of what the data can show.
LIMITED = ("AR .7", "ARMA", "t5 in AR .7")
SIZES = (1.0, 2.0, 4.0, 6.0)
