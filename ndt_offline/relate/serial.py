"""Serial dependence: how many independent samples a pair of autocorrelated series is worth."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.ranks import Floats

FEWEST_EFFECTIVE = 40


def autocorrelation(units: Floats, lags: int) -> Floats:
    """Autocorrelation at lags 1..lags of rows [k, n] of mean 0 and length 1: [k, lags]."""
    n = units.shape[1]
    size = 1 << int(np.ceil(np.log2(n + lags)))
    spectrum = np.fft.rfft(units, size, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.fft.irfft(power, size, axis=1)[:, 1 : lags + 1]


def effective_n(units_x: Floats, units_y: Floats) -> Floats:
    """Effective number of pairs [k, t] (Pyper and Peterman 1998), between 2 and n.

    1/n_eff = 1/n + 2/n * sum_j (1 - j/n) r_x(j) r_y(j), j = 1..n/5, on the autocorrelations of the
    (ranked) series. It holds for stationary series: two trends have no honest effective n.
    """
    n = units_x.shape[1]
    lags = max(1, n // 5)
    weight = 1 - np.arange(1, lags + 1) / n
    own_x, own_y = autocorrelation(units_x, lags), autocorrelation(units_y, lags)
    inverse = (1 + 2 * (own_x * weight) @ own_y.T) / n
    return np.clip(1 / np.maximum(inverse, 1 / n), 2.0, n)


def p_of_rho(rho: Floats, n_effective: Floats) -> Floats:
    """Two-sided p of a correlation: Student's t, rho * sqrt(df / (1 - rho^2)), df = n_eff - 2."""
    from scipy.special import stdtr

    freedom = np.maximum(n_effective - 2, 1e-9)
    size = np.abs(rho) * np.sqrt(freedom / np.maximum(1 - rho**2, 1e-300))
    return 2 * np.asarray(stdtr(freedom, -size))


def interval_of_rho(rho: Floats, n_effective: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Interval of Spearman's rho: tanh(artanh(rho) -+ z sqrt((1 + rho^2/2) / (n_eff - 3))).

    Fisher's transform with the variance of Bonett and Wright (2000) and n replaced by the
    effective n. With fewer than 4 effective pairs it is [-1, 1]: nothing is known.
    """
    from scipy.special import ndtri

    spare = np.maximum(n_effective - 3, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = ndtri((1 + level) / 2) * np.sqrt((1 + rho**2 / 2) / spare)
        centre = np.arctanh(np.clip(rho, -1, 1))
        low, high = np.tanh(centre - half), np.tanh(centre + half)
    unknown = (spare < 1) & ~np.isnan(rho)
    exact = (np.abs(rho) == 1) & ~unknown
    low, high = np.where(unknown, -1.0, low), np.where(unknown, 1.0, high)
    return np.where(exact, rho, low), np.where(exact, rho, high)


def p_of_units(rho: Floats, n_effective: Floats, n: int) -> Floats:
    """`p_of_rho` that trusts no pair of n samples worth fewer than 40 of them: there p is 1.

    (Fewer than n / 40 of a short pair, at least 5.) Two smooth curves of a few slow bends always
    agree or disagree, and prove nothing by it.
    """
    least = max(5.0, min(FEWEST_EFFECTIVE, n / 40))
    smooth = (n_effective < least) & ~np.isnan(rho)
    return np.where(smooth, 1.0, p_of_rho(rho, n_effective))


def p_of_pairs(units_x: Floats, units_y: Floats) -> tuple[Floats, Floats]:
    """rho and its `p_of_units` [k, t] for ranked rows [k, n] and [t, n] of length 1."""
    rho = np.clip(units_x @ units_y.T, -1, 1)
    return rho, p_of_units(rho, effective_n(units_x, units_y), units_x.shape[1])
