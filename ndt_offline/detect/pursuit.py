"""Candidate steps: found one by one on the filter maps, then estimated together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ndt_offline.detect.filters import HALVES, Bank, Map, calibrate, make_bank, respond, run_filters
from ndt_offline.detect.noise import Noise, fit_noise
from ndt_offline.detect.transition import Array, Points

APART = 12  # candidates are at least this many points apart
LOWEST = 4.0  # |T| of the weakest candidate
STRONG = 4.5  # without one of at least this the noise is not fitted again
MOST = 80
ROUNDS = 2


@dataclass(frozen=True)
class Search:
    """The noise of a series without its candidates, and the candidates.

    at [k]: first point of the new level. row [k]: which filter. sizes [k]: joint estimates.
    outputs [k]: filter output at the candidate. mixing [k, k]: output of candidate i's filter per
    unit of step j. strongest: largest |T| of a candidate on its own.
    """

    noise: Noise
    bank: Bank
    scale: Array
    at: Points
    row: Points
    sizes: Array
    outputs: Array
    mixing: Array
    strongest: float

    @cached_property
    def covariance(self) -> Array:
        """Covariance [k, k] of the outputs, calibrated. Only the last round's is asked for."""
        return covary(self.bank, self.scale, self.noise, self.at, self.row)


def search(x: Array, noise: Noise | None = None) -> Search:
    """Noise and candidates of one clean series (no NaN, no glitches), in up to three rounds.

    Each round fits the noise to the series without the steps of the round before; `noise` is that
    of the series itself, if it is known.
    """
    found = _round(x, noise or fit_noise(x), None)
    for _ in range(ROUNDS - 1):
        if found.strongest < STRONG:
            break
        rest = x - staircase(found.at, found.sizes, len(x))
        found = _round(x, fit_noise(rest), found)
    return found


def _round(x: Array, noise: Noise, before: Search | None) -> Search:
    bank = make_bank(noise.phi, len(x))
    maps = run_filters(x, noise, bank)
    own = maps.size
    if before is not None:
        own = own - responses(bank, before.at, before.sizes, len(x))
    scale = calibrate(own, maps.error, bank.halves)
    at, row, strongest = pursue(maps, bank, scale)
    outputs = maps.size[row, at]
    mixing = respond(bank, row[:, None], at[:, None] - at[None])
    sizes = np.asarray(np.linalg.solve(mixing, outputs), np.float64)
    return Search(noise, bank, scale, at, row, sizes, outputs, mixing, strongest)


def pursue(maps: Map, bank: Bank, scale: Array) -> tuple[Points, Points, float]:
    """Points and filters of the candidates: the largest |T| of what is left, one at a time.

    And the largest of all, which is the first.
    """
    left = maps.size.copy()
    unit = 1.0 / (maps.error * scale[:, None])
    score = np.abs(left) * unit
    n = left.shape[1]
    best = score.max(axis=0)
    strongest = float(best.max())
    reach = bank.response.shape[1] // 2
    found: list[tuple[int, int]] = []
    while len(found) < MOST:
        i = int(best.argmax())
        if best[i] < LOWEST:
            break
        row = int(score[:, i].argmax())
        found.append((i, row))
        unit[:, max(0, i - APART + 1) : i + APART] = 0.0  # no other candidate so near
        a, b = max(0, i - reach), min(n, i + reach + 1)
        near, fresh = left[:, a:b], score[:, a:b]
        near -= left[row, i] * bank.response[:, a - i + reach : b - i + reach]
        np.abs(near, out=fresh)
        fresh *= unit[:, a:b]
        np.maximum.reduce(fresh, axis=0, out=best[a:b])
    found.sort()
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], strongest


def responses(bank: Bank, at: Points, sizes: Array, n: int) -> Array:
    """Output of every filter at every point to the steps `sizes` at `at`. [w, n]."""
    out = np.zeros((len(bank.halves), n))
    reach = bank.response.shape[1] // 2
    for i, size in zip(at.tolist(), sizes.tolist(), strict=True):
        a, b = max(0, i - reach), min(n, i + reach + 1)
        out[:, a:b] += size * bank.response[:, a - i + reach : b - i + reach]
    return out


def staircase(at: Points, sizes: Array, n: int) -> Array:
    """The sum of the steps alone. [n]."""
    jumps = np.zeros(n)
    np.add.at(jumps, at, sizes)
    return np.cumsum(jumps)


def covary(bank: Bank, scale: Array, noise: Noise, at: Points, row: Points) -> Array:
    """Covariance [k, k] of the candidates' filter outputs under the noise model."""
    half = HALVES[-1]
    volatility = np.zeros(len(noise.volatility) + 2 * half)
    volatility[half:-half] = noise.volatility
    placed = np.zeros((len(at), len(volatility)))
    weights = bank.weights * scale[:, None]
    for one, i, r in zip(placed, at.tolist(), row.tolist(), strict=True):
        np.multiply(weights[r], volatility[i : i + 2 * half], out=one[i : i + 2 * half])
    return placed @ placed.T
