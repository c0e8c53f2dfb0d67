"""Matched noise: series like the one under test, with its steps taken out."""

from __future__ import annotations

import numpy as np

from ndt_offline.detect.gls import Fit, candidates, standing
from ndt_offline.detect.noise import (
    ORDER,
    TREND,
    autoregress,
    fit_ar,
    rolling_scale,
    running_median,
    whiten,
)
from ndt_offline.detect.pursuit import staircase
from ndt_offline.detect.tails import CENSOR, GAUSSIAN, fit_tails
from ndt_offline.detect.transition import Array, Steps

WARM = 200  # points run before the first one, so that the noise starts in its own state
SMOOTH = 61  # points of the mean that smooths the running median
SCALE = 201
STABLE = 0.9995  # largest root of the autoregression that is run


def matched_noise(
    values: Array, steps: Steps, draws: int = 10, seed: int | tuple[int, ...] = 0
) -> Array:
    """Noise like this series, with its steps and glitches taken out. [n] -> [draws, n].

    The steps that the `steps` detector accepts at its defaults are removed, and its glitches;
    AR(8) is fitted to the rest around its running median (201); the innovations are kept in their
    order, each with a random sign, run through the AR model, and the running median, smoothed
    over 61 points, is put back. Where the tails are heavy the largest one in a hundred, and those
    at removed steps, are drawn anew from the fitted Student tail. Order kept means volatility
    kept: bursts stay where they were. Resampling the innovations instead overstates false
    positives three to five times on persistent noise. Points that were not tested keep their
    values. No draws ([0, n]) where nothing could be tested.
    """
    _, _, fits = candidates(values, steps, describe=False)
    return draw(np.asarray(values, np.float64), fits, draws, seed)


def draw(values: Array, fits: list[Fit], draws: int, seed: int | tuple[int, ...]) -> Array:
    """The same from fits that were already made."""
    if not fits or draws == 0:
        return np.zeros((0, len(values)))
    rng = np.random.default_rng(seed)
    out = np.tile(values, (draws, 1))
    for f in fits:
        out[:, f.points] = f.centre + f.unit * _piece(f, draws, rng)
    return out


def _piece(f: Fit, draws: int, rng: np.random.Generator) -> Array:
    from scipy.ndimage import uniform_filter1d

    rest = f.clean - staircase(*standing(f), len(f.clean))
    trend = running_median(rest, TREND)
    around = rest - trend
    phi = stable(fit_ar(around / rolling_scale(around, SCALE)))
    own = np.tile(whiten(around, phi)[ORDER:], (draws, 1))
    _refill(own, f, rng)
    long = np.concatenate([own[:, :WARM][:, ::-1], own[:, :ORDER], own], axis=1)
    signed = long * rng.choice((-1.0, 1.0), size=long.shape)
    noise = autoregress(signed, phi)[:, -len(f.clean) :]
    return noise + uniform_filter1d(trend, min(SMOOTH, len(trend)), mode="nearest")


def _refill(own: Array, f: Fit, rng: np.random.Generator) -> None:
    """Draw the largest innovations of heavy-tailed noise anew from the fitted tail, in place.

    The steps that were taken out may have been wild innovations; without new ones in their place
    the noise would be calmer than the series.
    """
    from scipy.special import stdtr, stdtrit

    # The tail of the series itself: candidates were taken out of the later noise models.
    nu, scale = fit_tails(f.raw.innovations[ORDER:] / f.raw.volatility[ORDER:])
    if nu >= GAUSSIAN:
        return
    volatility = f.found.noise.volatility[ORDER:]
    size = np.abs(own[0]) / volatility
    limit = float(np.quantile(size, CENSOR))
    wild = size > limit
    at = standing(f)[0] - ORDER
    wild[at[at >= 0]] = True
    chance = rng.random((len(own), int(wild.sum()))) * stdtr(nu, -limit / scale)
    own[:, wild] = -scale * stdtrit(nu, chance) * volatility[wild]


def stable(phi: Array) -> Array:
    """The coefficients, with roots pulled inside the unit circle if they touch it."""
    largest = float(np.abs(np.roots(np.r_[1.0, -phi])).max(initial=0.0))
    if largest <= STABLE:
        return phi
    return phi * (STABLE / largest) ** np.arange(1, ORDER + 1)
