"""How sure a fitted curve is: simulated again with noise like its own, and fitted again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ndt_offline.relate.evidence import gain, moving_average
from ndt_offline.relate.hinges import Curves, Search, fit_curves, prepare
from ndt_offline.relate.noise import (
    Draws,
    Noise,
    bin_covariance,
    fit_noise,
    simulate,
)
from ndt_offline.relate.ranks import Floats

MOST = 3
# Draws are worked through a few at a time: what stays in the cache is not allocated anew.
FEW = 16


@dataclass(frozen=True)
class Fitted:
    """One series: its search, its curves of 1..3 phases, the noise around the fullest of them.

    The noise is ARMA(4, 1) times `scale` [n], which is 1 unless the series plainly calms down.
    """

    search: Search
    curves: tuple[Curves, ...]
    noise: Noise
    scale: Floats


def fit_series(row: Floats, scale: Floats, plain: Search) -> Fitted:
    """Curves of 1, 2 and 3 phases for one series [n], weighted by the noise they leave.

    The first fit is `plain`, as if samples were independent; the noise of what it leaves over
    weighs the second.
    """
    bins = plain.bins
    means = bins.mean(row[None])
    line = fit_curves(plain, means, 1).at(bins.t)[0]
    average = moving_average((row - line) / scale)
    noise = _leftover(row[None], fit_curves(plain, means, MOST), plain, scale, average)
    sizes = bins.mean(scale)
    search = prepare(bins, bin_covariance(noise, bins) * np.outer(sizes, sizes))
    curves = tuple(fit_curves(search, means, m) for m in range(1, MOST + 1))
    left = _leftover(row[None], curves[-1], search, scale, average)
    return Fitted(search, curves, left, scale)


def evidence(fitted: Fitted, row: Floats, phases: int) -> float:
    """`gain` of the curve of so many phases over a straight line, or of the line over no trend."""
    curves = [row - fitted.curves[m - 1].at(fitted.search.bins.t)[0] for m in (1, phases)]
    simpler = row - row.mean() if phases == 1 else curves[0]
    return gain(curves[-1] / fitted.scale, simpler / fitted.scale)


def _leftover(rows: Floats, curves: Curves, search: Search, scale: Floats, average: float) -> Noise:
    return fit_noise((rows - curves.at(search.bins.t)) / scale, average)


def draw_noise(fitted: Fitted, white: Draws) -> Noise:
    """The noise of each draw: without the bias of the fit, with the uncertainty of its estimate.

    A curve follows some of the noise, so what it leaves looks less persistent than the noise was.
    The loss is found by doing it again: simulate from the curve and the estimate, refit both.
    """
    parts = [_noise_again(fitted, white[i : i + FEW]) for i in range(0, len(white), FEW)]
    reflection = np.concatenate([part.reflection for part in parts])
    deviation = np.concatenate([part.deviation for part in parts])
    bend = np.arctanh(reflection) - np.arctanh(fitted.noise.reflection)
    stretch = np.log(deviation / fitted.noise.deviation)
    # corrected = estimate - mean bias; a draw adds its own deviation from the mean.
    return fitted.noise.moved(bend - 2 * bend.mean(axis=0), stretch - 2 * stretch.mean())


def _noise_again(fitted: Fitted, white: Draws) -> Noise:
    """The noise fitted to what a few draws leave around the curves refitted to them."""
    bins = fitted.search.bins
    noise = simulate(fitted.noise, white, len(bins.t)) * fitted.scale
    rows = fitted.curves[-1].at(bins.t) + noise
    refit = fit_curves(fitted.search, bins.mean(rows), MOST)
    return _leftover(rows, refit, fitted.search, fitted.scale, fitted.noise.average)


def binned_noise(fitted: Fitted, noise: Noise, white: Draws) -> Floats:
    """Bin means [D, B] of one simulated noise per draw."""
    bins, n = fitted.search.bins, len(fitted.search.bins.t)
    few = [slice(i, i + FEW) for i in range(0, len(white), FEW)]
    drawn = (simulate(noise.rows(part), white[part], n) * fitted.scale for part in few)
    return np.concatenate([bins.mean(rows) for rows in drawn])


def refits(fitted: Fitted, phases: int, noise: Floats, upto: int) -> tuple[Curves, ...]:
    """Fits of `phases`..`upto` phases to the curve of `phases` plus binned `noise` [D, B]."""
    bins = fitted.search.bins
    means = bins.mean(fitted.curves[phases - 1].at(bins.t)) + noise
    return tuple(fit_curves(fitted.search, means, m) for m in range(phases, upto + 1))


def p_of_more(fitted: Fitted, phases: int, again: tuple[Curves, ...]) -> float:
    """p of `phases` phases being enough against one more, by the likelihood ratio.

    The ratio rss_m / rss_(m+1) of the series among those of the draws, which have m phases.
    """
    simpler, fuller = fitted.curves[phases - 1 : phases + 1]
    seen = float(simpler.rss[0] / max(fuller.rss[0], 1e-300))
    ratios = again[0].rss / np.maximum(again[1].rss, 1e-300)
    return float((1 + np.sum(ratios >= seen)) / (1 + len(ratios)))
