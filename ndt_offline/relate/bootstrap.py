"""How sure a fitted curve is: simulated again with noise like its own, and fitted again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ndt_offline.relate.bins import Bins
from ndt_offline.relate.hinges import Curves, Search, fit_curves, prepare
from ndt_offline.relate.noise import (
    Floats,
    Noise,
    NDArrayComplex,
    bin_covariance,
    fit_noise,
    simulate,
)

MOST = 3


@dataclass(frozen=True)
class Fitted:
    """One series: its search, its curves of 1..3 phases, the noise around the fullest of them."""

    search: Search
    means: Floats
    curves: tuple[Curves, ...]
    noise: Noise


def fit_series(row: Floats, bins: Bins) -> Fitted:
    """Curves of 1, 2 and 3 phases for one series [n], weighted by the noise they leave.

    The first fit takes independent samples; the AR(4) of what it leaves over weighs the second.
    """
    means = bins.mean(row[None])
    search = prepare(bins, np.diag(1.0 / bins.sizes))
    for _ in range(2):
        curve = fit_curves(search, means, MOST)
        noise = fit_noise(row[None] - curve.at(bins.t))
        search = prepare(bins, bin_covariance(noise, bins) / noise.deviation**2)
    curves = tuple(fit_curves(search, means, m) for m in range(1, MOST + 1))
    return Fitted(search, means, curves, fit_noise(row[None] - curves[-1].at(bins.t)))


def draw_noise(fitted: Fitted, white: NDArrayComplex) -> Noise:
    """The noise of each draw: without the bias of the fit, with the uncertainty of its estimate.

    A curve follows some of the noise, so what it leaves looks less persistent than the noise was.
    The loss is found by doing it again: simulate from the curve and the estimate, refit both.
    """
    bins, draws = fitted.search.bins, len(white)
    same = Noise(np.repeat(fitted.noise.reflection, draws, 0), np.repeat(fitted.noise.deviation, draws))
    simulated = fitted.curves[-1].at(bins.t) + simulate(same, white, len(bins.t))
    refit = fit_curves(fitted.search, bins.mean(simulated), MOST)
    again = fit_noise(simulated - refit.at(bins.t))
    bend = np.arctanh(again.reflection) - np.arctanh(same.reflection)
    stretch = np.log(again.deviation / same.deviation)
    # corrected = estimate - mean bias; a draw adds its own deviation from the mean.
    return same.moved(bend - 2 * bend.mean(axis=0), stretch - 2 * stretch.mean())


def refits(fitted: Fitted, phases: int, noise: Floats, upto: int) -> tuple[Curves, ...]:
    """Fits of `phases`..`upto` phases to the curve of `phases` plus binned `noise` [D, B]."""
    bins = fitted.search.bins
    means = bins.mean(fitted.curves[phases - 1].at(bins.t)) + noise
    return tuple(fit_curves(fitted.search, means, m) for m in range(phases, upto + 1))


def p_of_more(fitted: Fitted, phases: int, again: tuple[Curves, ...]) -> float:
    """p of `phases` phases being enough against one more: parametric bootstrap of rss_m / rss_m+1."""
    simpler, fuller = fitted.curves[phases - 1 : phases + 1]
    seen = float(simpler.rss[0] / max(fuller.rss[0], 1e-300))
    ratios = again[0].rss / np.maximum(again[1].rss, 1e-300)
    return float((1 + np.sum(ratios >= seen)) / (1 + len(ratios)))
