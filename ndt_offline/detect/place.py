"""Where a step lies: the interval of training steps that holds it."""

from __future__ import annotations

from functools import cache

import numpy as np

from ndt_offline.detect.around import weigh
from ndt_offline.detect.filters import HALVES
from ndt_offline.detect.noise import ORDER, whiten, whitened_step
from ndt_offline.detect.pursuit import LOWEST, Search
from ndt_offline.detect.tails import GAUSSIAN, ITERATIONS, fit_tails
from ndt_offline.detect.transition import Array, Points

LEVEL = 0.9  # nominal coverage of the interval of the step
AROUND = 12  # points on either side that may hold the step (less than any half width)
REFITS = 2  # at each place, from the fit at the candidate's


def intervals(rest: Array, found: Search, Tt: Array, nu: float) -> tuple[Points, Points]:
    """Shortest run of points that holds each candidate and .9 of the posterior of its step.

    Flat prior on place and size, noise as fitted, Gaussian or Student-t with nu degrees of freedom
    as the detector took it, the window of the candidate's filter. `rest` [k, 264]: the `windows`
    of the candidates. Offsets from the candidate, first and last: first <= 0 <= last. Where tails
    are heavy and |Tt| is below `LOWEST`, no step is there to be placed: all 25 points.
    """
    first, last = np.full(len(found.at), -AROUND), np.full(len(found.at), AROUND)
    there = np.flatnonzero(np.abs(Tt) >= LOWEST) if nu < GAUSSIAN else np.arange(len(Tt))
    if not len(there):
        return first, last
    row = found.row[there]
    data = whiten(rest[there], found.noise.phi)[:, ORDER:]
    halves = np.array(found.bank.halves)[row]
    inside = np.abs(np.arange(-HALVES[-1], HALVES[-1]) + 0.5) < halves[:, None]
    weight = np.where(inside, weigh(found)[there] / found.scale[row][:, None], 0.0)
    steps, nuisance = _shifted(found.noise.phi), found.bank.designs[row, 1:]
    if nu < GAUSSIAN:
        _, scale = fit_tails(found.noise.innovations[ORDER:] / found.noise.volatility[ORDER:])
        log = _student(data, weight / scale, steps, nuisance, nu)
    else:
        log = _gaussian(data, weight**2, steps, nuisance)
    share = np.exp(log - log.max(axis=1, keepdims=True))
    runs = [_run(one / one.sum()) for one in share]
    first[there], last[there] = np.array(runs, np.int64).T - AROUND
    return first, last


def _gaussian(data: Array, weight: Array, steps: Array, nuisance: Array) -> Array:
    """Log-posterior of a step at each of the 25 places, but for a constant. [k, 25].

    data, weight (precision) [k, 256]; steps [256, 25]; nuisance [k, 4, 256].
    """
    weighted = nuisance * weight[:, None]
    # Least squares on the nuisance; the ridge keeps columns that are 0, or nearly so, harmless.
    gram = _ridged(weighted @ nuisance.swapaxes(1, 2))
    mixed = np.empty((*weighted.shape[:2], steps.shape[1] + 1))
    mixed[:, :, :-1] = (weighted.reshape(-1, len(steps)) @ steps).reshape(-1, 4, steps.shape[1])
    mixed[:, :, -1:] = weighted @ data[:, :, None]
    solved = np.linalg.solve(gram, mixed)
    shared = mixed[:, :, :-1]
    power = weight @ steps**2 - (shared * solved[:, :, :-1]).sum(axis=1)
    power = np.maximum(power, 1e-300)
    product = (weight * data) @ steps - (shared * solved[:, :, -1:]).sum(axis=1)
    return np.asarray(product**2 / (2 * power) - 0.5 * np.log(power), np.float64)


def _student(data: Array, weight: Array, steps: Array, nuisance: Array, nu: float) -> Array:
    """The same under Student-t noise of scale 1 / weight, size and nuisance fitted at each place.

    By reweighted least squares: at the candidate's place first, from there at each place. Where
    the Gaussian log-likelihood lets one wild innovation say where the step is, this one shrugs.
    """
    within = weight > 0.0
    spread = nu / np.where(within, weight, 1.0) ** 2
    own = np.concatenate([np.tile(steps[:, AROUND], (len(data), 1, 1)), nuisance], axis=1)
    reweighted = within / spread
    for _ in range(ITERATIONS):
        fit, _ = _least_squares(own, data, reweighted)
        reweighted = within / (spread + _squares(own, data, fit))
    columns = np.empty((len(data), steps.shape[1], 5, len(steps)))
    columns[:, :, 0], columns[:, :, 1:] = steps.T, nuisance[:, None]
    data, spread, within, fit = data[:, None], spread[:, None], within[:, None], fit[:, None]
    square = _squares(columns, data, fit)
    for _ in range(REFITS):
        fit, power = _least_squares(columns, data, within / (spread + square))
        square = _squares(columns, data, fit)
    loss = (np.log1p(square / spread) * within).sum(axis=2)
    return np.asarray(-(nu + 1) / 2 * loss - 0.5 * np.log(power), np.float64)


def _squares(columns: Array, data: Array, fit: Array) -> Array:
    """Squared residuals [..., 256] of the fit [..., 5] with the columns [..., 5, 256]."""
    return np.asarray((data - (fit[..., None, :] @ columns)[..., 0, :]) ** 2, np.float64)


def _least_squares(columns: Array, data: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted fit [..., 5], and the information [...] there is on its first coefficient."""
    weighted = columns * weight[..., None, :]
    gram = _ridged(weighted @ columns.swapaxes(-1, -2))
    right = np.zeros((*gram.shape[:-1], 2))
    right[..., 0] = (weighted @ data[..., None])[..., 0]
    right[..., 0, 1] = 1.0
    solved = np.linalg.solve(gram, right)
    fit, variance = solved[..., 0], np.maximum(solved[..., 0, 1], 1e-300)
    return np.asarray(fit, np.float64), np.asarray(1.0 / variance, np.float64)


def _ridged(gram: Array) -> Array:
    """Normal equations with a little on the diagonal: of a column that is 0 nothing is asked."""
    size = gram.shape[-1]
    most = np.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    return np.asarray(gram + 1e-12 * most * np.eye(size), np.float64)


def _shifted(phi: Array) -> Array:
    """Whitened steps at -12..12 points from the centre of the window. [256, 25]."""
    shape, half = whitened_step(phi), HALVES[-1]
    step = np.full(3 * half + AROUND, shape[-1])
    step[: half + AROUND] = 0.0
    step[half + AROUND : half + AROUND + ORDER + 1] = shape
    return step[_places()]


@cache
def _places() -> Points:
    """Where the points of the window lie in a series that steps at half + 12. [256, 25]."""
    return np.arange(2 * HALVES[-1])[:, None] + np.arange(2 * AROUND, -1, -1)


def _run(share: Array) -> tuple[int, int]:
    """Grow a run from the most likely point and the candidate, to the likelier side, to .9."""
    most = int(share.argmax())
    a, b = min(most, AROUND), max(most, AROUND)
    held, many = float(share[a : b + 1].sum()), share.tolist()
    while held < LEVEL:
        left = many[a - 1] if a > 0 else -1.0
        right = many[b + 1] if b + 1 < len(many) else -1.0
        a, b = (a - 1, b) if left >= right else (a, b + 1)
        held += max(left, right)
    return a, b
