"""Noises without a step, each a function `(rng, n) -> [n]`; unit innovations or unit SD."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ndt_offline.detect.noise import autoregress
from ndt_offline.detect.transition import Array

Generator = np.random.Generator
Noise = Callable[[Generator, int], Array]
WARM = 500  # points simulated and dropped before a stationary series starts


def white(rng: Generator, n: int) -> Array:
    """Independent Gaussian values of SD 1."""
    return rng.normal(size=n)


def student(rng: Generator, n: int, df: float = 3.0) -> Array:
    """Independent Student-t values with `df` degrees of freedom (heavy tails, SD not 1)."""
    return rng.standard_t(df, size=n)


def recursive(rng: Generator, n: int, phi: tuple[float, ...], innovation: Noise = white) -> Array:
    """Autoregression x_t = sum_k phi_k x_(t-k) + e_t, stationary start."""
    return autoregress(innovation(rng, n + WARM), phi)[WARM:]


def moving(rng: Generator, n: int, phi: float = 0.9, theta: float = -0.5) -> Array:
    """ARMA(1, 1): x_t = phi x_(t-1) + e_t + theta e_(t-1)."""
    e = rng.normal(size=n + WARM + 1)
    return autoregress(e[1:] + theta * e[:-1], (phi,))[WARM:]


def walk(rng: Generator, n: int, innovation: Noise = white) -> Array:
    """Random walk: the running sum of the innovations."""
    return np.cumsum(innovation(rng, n))


def walk_and_white(rng: Generator, n: int, share: float = 0.2) -> Array:
    """White noise of SD 1 on a random walk with innovations of SD `share`."""
    return rng.normal(size=n) + share * np.cumsum(rng.normal(size=n))


def garch(rng: Generator, n: int, alpha: float = 0.15, beta: float = 0.8) -> Array:
    """GARCH(1, 1): variance v_t = 1 - alpha - beta + alpha x_(t-1)^2 + beta v_(t-1), mean 1."""
    shocks = rng.normal(size=n + WARM).tolist()
    out, variance, last = [], 1.0, 0.0
    for shock in shocks:
        variance = 1 - alpha - beta + alpha * last * last + beta * variance
        last = shock * variance**0.5
        out.append(last)
    return np.array(out[WARM:])


def calming(rng: Generator, n: int, noise: Noise = white, ratio: float = 0.1) -> Array:
    """Noise whose SD falls as in training: quickly at first, to `ratio` of where it began."""
    t = np.arange(n) / n
    return noise(rng, n) * (ratio + (1 - ratio) * np.exp(-6 * t))


NOISES: dict[str, Noise] = {
    "white": white,
    "AR .5": partial(recursive, phi=(0.5,)),
    "AR .7": partial(recursive, phi=(0.7,)),
    "AR .9": partial(recursive, phi=(0.9,)),
    "AR .99": partial(recursive, phi=(0.99,)),
    "ARMA": moving,
    "walk": walk,
    "walk + white": walk_and_white,
    "t3": student,
    "calming white": calming,
    "calming AR .9": partial(calming, noise=partial(recursive, phi=(0.9,))),
    "GARCH": garch,
    "t5 in AR .7": partial(recursive, phi=(0.7,), innovation=partial(student, df=5.0)),
    "t5 in walk": partial(walk, innovation=partial(student, df=5.0)),
    "t3 in walk": partial(walk, innovation=student),
    "momentum": partial(recursive, phi=(1.5, -0.55)),
    "oscillation": partial(recursive, phi=(1.6, -0.9)),
}
