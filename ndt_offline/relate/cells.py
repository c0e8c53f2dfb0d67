"""Pairs of series whose truth is known: independent ones of every kind, and coupled ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ndt_offline.relate.ranks import Floats

Generator = np.random.Generator
Draw = Callable[[Generator, int, int], Floats]
DrawPairs = Callable[[Generator, int, int], tuple[Floats, Floats]]

# Samples let go by before a filtered series counts as stationary.
WARM_UP = 2500


def filtered(white: Floats, *phi: float) -> Floats:
    """x_t = sum_j phi_j x_(t-j) + e_t, driven by the rows of `white`, warm-up included."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], [1.0, *(-p for p in phi)], white, axis=1))


def _ar(*phi: float) -> Draw:
    return lambda rng, k, n: filtered(rng.normal(size=(k, n + WARM_UP)), *phi)[:, -n:]


def _unit_ar(rng: Generator, k: int, n: int, phi: float) -> Floats:
    return _ar(phi)(rng, k, n) * np.sqrt(1 - phi**2)


def _time(n: int) -> Floats:
    return np.arange(n) / n


def _walk(rng: Generator, k: int, n: int) -> Floats:
    return np.cumsum(rng.normal(size=(k, n)), axis=1)


def _walk_and_trend(rng: Generator, k: int, n: int) -> Floats:
    return _walk(rng, k, n) + 0.1 * n * _time(n) * rng.uniform(0.5, 2, (k, 1))


def _trend(rng: Generator, k: int, n: int) -> Floats:
    return rng.normal(size=(k, n)) + 5 * _time(n) * rng.choice([-1, 1], (k, 1))


def _decay(rng: Generator, k: int, n: int) -> Floats:
    return np.exp(-_time(n) * rng.uniform(2, 20, (k, 1)))


def _decay_and_ar(rng: Generator, k: int, n: int) -> Floats:
    return 5 * _decay(rng, k, n) + 0.7 * _unit_ar(rng, k, n, 0.9)


def _loss(rng: Generator, k: int, n: int) -> Floats:
    noise = (0.3 * _decay(rng, k, n) + 0.05) * rng.normal(size=(k, n))
    return 2.3 * _decay(rng, k, n) + 0.1 + noise


def _calming(n: int) -> Floats:
    return np.exp(-3 * _time(n)) + 0.05


def _early_drop(noise: float) -> Draw:
    """Most of the change within the first 5 to 60 samples, as in training, then a slow decay."""

    def draw(rng: Generator, k: int, n: int) -> Floats:
        at = np.arange(n)
        fast, slow = rng.uniform(5, 60, (k, 1)), rng.uniform(0.1, 0.5, (k, 1)) * n
        course = 2 * np.exp(-at / fast) + 0.5 * np.exp(-at / slow)
        return rng.choice([-1, 1], (k, 1)) * course + noise * rng.normal(size=(k, n))

    return draw


def _power_law(rng: Generator, k: int, n: int) -> Floats:
    course = (1 + np.arange(n) / rng.uniform(1, 20, (k, 1))) ** -rng.uniform(0.3, 1.2, (k, 1))
    return course + 0.01 * rng.normal(size=(k, n))


def _drop_and_walk(rng: Generator, k: int, n: int) -> Floats:
    walk = np.cumsum(0.004 * _unit_ar(rng, k, n, 0.5), axis=1)
    return 2 * np.exp(-np.arange(n) / rng.uniform(5, 60, (k, 1))) + walk


# Independent pairs: both members are drawn by the same function.
NULLS: dict[str, Draw] = {
    "white noise": lambda rng, k, n: rng.normal(size=(k, n)),
    "AR(1) .5": _ar(0.5),
    "AR(1) .9": _ar(0.9),
    "AR(1) .99": _ar(0.99),
    "AR(2) 1.6 -.8": _ar(1.6, -0.8),
    "random walks": _walk,
    "random walks + trend": _walk_and_trend,
    "trends + noise": _trend,
    "exponential decays + AR": _decay_and_ar,
    "loss-like decays": _loss,
    "shared variance decay, white": lambda rng, k, n: _calming(n) * rng.normal(size=(k, n)),
    "shared variance decay, AR .9": lambda rng, k, n: _calming(n) * _ar(0.9)(rng, k, n),
    "early drop": _early_drop(0.1),
    "early drop, little noise": _early_drop(0.02),
    "power laws, little noise": _power_law,
    "early drop + random walk": _drop_and_walk,
    "shared decay only": lambda rng, k, n: (
        3 * np.exp(-5 * _time(n)) + 0.3 * rng.normal(size=(k, n))
    ),
}


def _common_shocks(rho: float, lag: int, *phi: float) -> DrawPairs:
    """Two AR processes whose shocks correlate by rho, the target's `lag` samples later."""

    def draw(rng: Generator, k: int, n: int) -> tuple[Floats, Floats]:
        shocks = rng.normal(size=(k, n + WARM_UP))
        own = np.sqrt(1 - rho**2) * rng.normal(size=shocks.shape)
        late = rho * np.roll(shocks, lag, axis=1) + own
        return filtered(shocks, *phi)[:, -n:], filtered(late, *phi)[:, -n:]

    return draw


def _common_part(phi: float, noise: float, lag: int, trend: float = 0.0) -> DrawPairs:
    """One AR process in both, `lag` samples later in the target, and white noise in each."""

    def draw(rng: Generator, k: int, n: int) -> tuple[Floats, Floats]:
        hidden = _unit_ar(rng, k, n + lag, phi)
        up = trend * _time(n)
        x = hidden[:, lag:] + noise * rng.normal(size=(k, n)) + up
        return x, hidden[:, :n] + noise * rng.normal(size=(k, n)) - up

    return draw


def _walks(rho: float, lag: int) -> DrawPairs:
    def draw(rng: Generator, k: int, n: int) -> tuple[Floats, Floats]:
        shocks = rng.normal(size=(k, n + lag))
        own = np.sqrt(1 - rho**2) * rng.normal(size=(k, n))
        return np.cumsum(shocks[:, lag:], 1), np.cumsum(rho * shocks[:, :n] + own, 1)

    return draw


def _losses(rng: Generator, k: int, n: int) -> tuple[Floats, Floats]:
    t = _time(n)
    calming = np.exp(-3 * t) + 0.1
    x, y = _common_part(0.9, 0.3, 0)(rng, k, n)
    return 3 * np.exp(-5 * t) + calming * x, 2 * np.exp(-3 * t) + calming * y


COUPLED: dict[str, DrawPairs] = {
    "AR .9, shocks .2": _common_shocks(0.2, 0, 0.9),
    "AR .9 + noise": _common_part(0.9, 1.0, 0),
    "AR .9 + noise + opposite trends": _common_part(0.9, 1.0, 0, trend=8.0),
    "AR .5 + noise": _common_part(0.5, 1.0, 0),
    "AR .99 + noise": _common_part(0.99, 0.5, 0),
    "random walks, shocks .2": _walks(0.2, 0),
    "losses that calm down": _losses,
}
LAGGED: dict[str, DrawPairs] = {
    "lag 5: AR .9, shocks .5": _common_shocks(0.5, 5, 0.9),
    "lag 5: AR .9, shocks .8": _common_shocks(0.8, 5, 0.9),
    "lag 5: AR .9 + noise": _common_part(0.9, 1.0, 5),
    "lag 5: random walks, shocks .5": _walks(0.5, 5),
}
