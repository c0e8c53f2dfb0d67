"""The truncated time shift test: is the coupling better now than at other times?"""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.ranks import Floats, unit_ranks

REACH = 200
STRIDE = 10


def shifts_for(n: int) -> list[int]:
    """-200..200 in steps of 10; for fewer than 1600 samples -n/8..n/8, in 41 shifts or fewer."""
    reach = min(REACH, n // 8)
    stride = max(1, min(STRIDE, reach // 20)) if reach < REACH else STRIDE
    count = reach // stride
    return [i * stride for i in range(-count, count + 1)]


def p_of_shift(series: Floats, targets: Floats) -> Floats:
    """p [k, t]: share of shifts of the target with at least the |rho| of no shift.

    The central part of each series [k, n] is ranked against the targets [t, n] moved by every
    shift, all of one length: nothing wraps round and no surrogate is invented, so trends in both
    do no harm (Yuan and Shou 2022). The smallest p is 1 / shifts; a coupling that is as good at
    other lags is not seen.
    """
    n = series.shape[1]
    shifts = shifts_for(n)
    reach = shifts[-1]
    centre = unit_ranks(series[:, reach : n - reach])
    best = np.zeros((len(series), len(targets)))
    now = np.abs(centre @ unit_ranks(targets[:, reach : n - reach]).T)
    for shift in shifts:
        moved = unit_ranks(targets[:, reach + shift : n - reach + shift])
        # Rounding must not decide whether the unshifted pair counts itself.
        best += np.abs(centre @ moved.T) >= now - 1e-12
    return np.where(np.isnan(now), np.nan, best / len(shifts))
