"""Sizes of steps that are known only because they looked large: intervals and an estimate."""

from __future__ import annotations

from functools import cache

import numpy as np

from ndt_offline.detect.elimination import REFERENCE
from ndt_offline.detect.pursuit import LOWEST
from ndt_offline.detect.transition import Array

BELOW, ABOVE = 0.025, 0.075  # chance that the true size is less than the interval, or more
FREEDOM = 30.0  # of a standard error that is itself known to 13 %: 1 / (2 * 0.13^2)
FURTHEST = 15.0  # standard errors beyond the threshold from which on selection says nothing


def conditional_sizes(T: Array) -> tuple[Array, Array, Array]:
    """Low end, median-unbiased estimate and high end of sizes, in standard errors, given T [k].

    A step is reported because |T| passed a threshold c, and among weak steps only the overstated
    ones do. Given that, T lies above t with probability P(e > t - m) / P(e > c - m) for a true size
    of m standard errors and an error e of Student's t (30 degrees of freedom, for the standard
    error is an estimate too). The low end is the m at which this is .025, the estimate the m at
    which it is .5 (Weinstein, Fithian and Benjamini 2013; Fithian, Sun and Taylor 2014); both are
    at least 0. The high end is that of an estimate that was not selected, at .075: selection only
    overstates. The chances differ because a size that is overstated is the likelier mistake.
    c is 4.7, or 4 where |T| is under 4.7.

    Just above the threshold the low end and the estimate are 0: such a T says that there is a
    step, and almost nothing about its size. Not conditional on the search over places and widths,
    nor on a higher threshold than 4.7 that a reader chooses afterwards.
    """
    size = np.abs(T)
    usual = size >= REFERENCE
    low, middle = (
        np.where(usual, _given(size, REFERENCE, chance), _given(size, LOWEST, chance))
        for chance in (BELOW, 0.5)
    )
    sign = np.sign(T)
    return sign * low, sign * middle, sign * (size + _quantile(1 - ABOVE))


def _given(size: Array, threshold: float, chance: float) -> Array:
    """The true size that such a |T|, or a larger one, has that chance under. [k]."""
    passed, shift = _shifts(threshold, chance)
    return np.maximum(size - np.interp(size, passed, shift), 0.0)


@cache
def _shifts(threshold: float, chance: float) -> tuple[Array, Array]:
    """|T| of that chance for true sizes from 0 up, and what is to be taken off it. [m], [m]."""
    from scipy.special import stdtr, stdtrit

    true = np.linspace(0.0, threshold + FURTHEST, 400)
    shift = -stdtrit(FREEDOM, chance * stdtr(FREEDOM, true - threshold))
    # Student's t is not monotone where the true size hardly matters: keep it in order.
    return np.maximum.accumulate(true + shift), shift


@cache
def _quantile(chance: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(FREEDOM, chance))
