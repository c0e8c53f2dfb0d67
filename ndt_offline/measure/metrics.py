"""Dimensionality metrics of stored spectra.

Every function takes singular values s [..., component], descending, NaN where a layer has fewer
components than the array is wide, and gives [...]. All are invariant under scaling of s and lie
between 1 and the number of non-zero values; a zero matrix gives 0, and a spectrum that could not
be computed (all NaN) gives NaN. They are properties of the measured matrix (here: of the probe,
or of a weight), uncentred unless the spectra were stored with --center.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError, nearest

Array: TypeAlias = npt.NDArray[np.float64]
Metric: TypeAlias = Callable[..., Array]

# Cumulative energies are compared with this slack, so that rounding cannot ask for one more
# component where the fraction is met exactly (90 % of ten equal values are nine of them).
_SLACK = 1e-12


def stable_rank(s: Array, shape: tuple[int, int] | None = None) -> Array:
    """Sum of s_i^2 over s_1^2: squared Frobenius norm over squared spectral norm.

    Range [1, rank]. Rudelson and Vershynin, J. ACM 54 (2007) 21.
    """
    energy, known = _energy(s)
    return _finish(energy.sum(-1), energy.max(-1, initial=0.0), known)


def participation_ratio(s: Array, shape: tuple[int, int] | None = None) -> Array:
    """(Sum of l_i)^2 over sum of l_i^2 with eigenvalues l_i = s_i^2.

    Range [1, rank]. Gao et al., bioRxiv 214262 (2017), eq. 5, for the covariance's eigenvalues.
    """
    energy, known = _energy(s)
    return _finish(energy.sum(-1) ** 2, (energy**2).sum(-1), known)


def participation_ratio_sv(s: Array, shape: tuple[int, int] | None = None) -> Array:
    """(Sum of s_i)^2 over sum of s_i^2: the same on singular values, as `ndtracker` has it.

    Range [1, rank]. It weighs small directions more and is never below `participation_ratio`.
    """
    values, known = _scaled(s)
    return _finish(values.sum(-1) ** 2, (values**2).sum(-1), known)


def components(s: Array, shape: tuple[int, int] | None = None, energy: float = 0.9) -> Array:
    """The smallest k with s_1^2 + ... + s_k^2 >= energy * sum of s_i^2.

    Range 1 .. rank, whole numbers. Jolliffe, Principal Component Analysis (2002), 6.1.1.
    """
    if not 0 < energy <= 1:
        raise UsageError(f"energy={energy}: expected a fraction above 0 and up to 1")
    values, known = _energy(s)
    total = values.sum(-1, keepdims=True)
    short = np.cumsum(values, -1) < energy * total * (1 - _SLACK)
    count = np.where(total[..., 0] > 0, short.sum(-1) + 1.0, 0.0)
    return np.where(known, count, np.nan)


def nuclear_norm_ratio(s: Array, shape: tuple[int, int] | None = None) -> Array:
    """Sum of s_i over s_1: nuclear norm over spectral norm. Range [1, rank]."""
    values, known = _scaled(s)
    return _finish(values.sum(-1), values.max(-1, initial=0.0), known)


def effective_rank(s: Array, shape: tuple[int, int] | None = None) -> Array:
    """exp(-sum of p_i log p_i) with p_i = s_i / sum of s: exponential of the entropy.

    Range [1, rank]. Roy and Vetterli, EUSIPCO 2007.
    """
    return _entropy_rank(*_scaled(s))


def effective_rank_energy(s: Array, shape: tuple[int, int] | None = None) -> Array:
    """The same with p_i = s_i^2 / sum of s^2, the shares of energy. Range [1, rank].

    The exponential of the von Neumann entropy of the normalised Gram matrix.
    """
    return _entropy_rank(*_energy(s))


def epsilon_rank(s: Array, shape: tuple[int, int] | None = None, epsilon: float = 0.01) -> Array:
    """The number of singular values above epsilon * s_1. Range 1 .. rank, whole numbers.

    The numerical rank of Golub and Van Loan, Matrix Computations (2013), 5.4.1, relative to s_1.
    """
    if not 0 < epsilon < 1:
        raise UsageError(f"epsilon={epsilon}: expected a fraction between 0 and 1")
    values, known = _scaled(s)
    top = values.max(-1, keepdims=True, initial=0.0)
    return np.where(known, (values > epsilon * top).sum(-1).astype(np.float64), np.nan)


METRICS: dict[str, Metric] = {
    "stable_rank": stable_rank,
    "participation_ratio": participation_ratio,
    "participation_ratio_sv": participation_ratio_sv,
    "components_90": partial(components, energy=0.9),
    "nuclear_norm_ratio": nuclear_norm_ratio,
    "effective_rank": effective_rank,
    "effective_rank_energy": effective_rank_energy,
    "epsilon_rank": epsilon_rank,
}


def choose_metrics(names: tuple[str, ...] | None, **levels: float) -> dict[str, Metric]:
    """The metrics of these names (None: all), with other levels where they are given.

    `components_K` is understood for any whole percentage K.
    """
    chosen: dict[str, Metric] = {}
    for name in names or tuple(METRICS):
        percent = name.removeprefix("components_")
        if name != percent and percent.isdigit() and 0 < int(percent) <= 100:
            chosen[name] = partial(components, energy=int(percent) / 100)
        elif name in METRICS:
            chosen[name] = METRICS[name]
        else:
            remedy = nearest(name, (*METRICS, "components_K"))
            raise UsageError(f"metric {name!r} is not known", remedy=remedy)
    if "epsilon" in levels and "epsilon_rank" in chosen:
        chosen["epsilon_rank"] = partial(epsilon_rank, epsilon=levels["epsilon"])
    return chosen


def _scaled(s: Any) -> tuple[Array, npt.NDArray[np.bool_]]:
    """s over its largest value with padding as 0, and which spectra are known at all.

    Scaling first keeps squares of tiny or huge values from underflow and overflow.
    """
    s = np.asarray(s, np.float64)
    known = np.isfinite(s).any(-1)
    values = np.where(np.isfinite(s), s, 0.0)
    top = values.max(-1, keepdims=True, initial=0.0)
    return np.divide(values, top, out=np.zeros_like(values), where=top > 0), known


def _energy(s: Any) -> tuple[Array, npt.NDArray[np.bool_]]:
    values, known = _scaled(s)
    return values**2, known


def _entropy_rank(weights: Array, known: npt.NDArray[np.bool_]) -> Array:
    total = weights.sum(-1, keepdims=True)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.where(known, np.where(total[..., 0] > 0, np.exp(-(share * logs).sum(-1)), 0), np.nan)


def _finish(top: Array, bottom: Array, known: npt.NDArray[np.bool_]) -> Array:
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return np.where(known, ratio, np.nan)
