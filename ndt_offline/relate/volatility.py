"""Noise that calms down, or grows, along training: one slope, and only where it is plain."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.ranks import Floats

# Second differences share samples, so the textbook standard error is too small; six of it are
# about four honest ones.
PLAIN = 6.0
FEWEST = 50
LIMIT = 100.0
# No early sample is thought noisier than this many times the median of the first ones.
EXCESS, EARLIEST = 2.0, 16


def volatility(values: Floats, t: Floats) -> Floats:
    """Relative size of the noise of each row [k, n] along t [n]: exp(b t), geometric mean 1.

    b is the slope of log |second difference| on t = log(step + 1), where trends have no part; it
    is 0 unless plain: one wrong slope does more harm to the first few samples, which weigh most
    in t, than a true but weak one. Never more than a factor of 100 from the mean; nor, before the
    mean of t, more than twice what the first 16 samples show.
    """
    sizes = np.abs(np.diff(values, n=2, axis=1))
    return np.vstack([_curve(row, t) for row in sizes]) if len(values) else np.ones(values.shape)


def _curve(sizes: Floats, t: Floats) -> Floats:
    moved = sizes > 0
    if moved.sum() < max(FEWEST, len(sizes) / 2):
        return np.ones(len(t))
    x, y = t[1:-1][moved], np.log(sizes[moved])
    center = y.mean()
    x, y = x - x.mean(), y - center
    power = x @ x
    slope = (x @ y) / power
    # A size near zero has a logarithm far below; it must not steer the slope.
    rest = y - slope * x
    rest = np.clip(rest, *np.quantile(rest, [0.02, 0.98]))
    slope += (x @ rest) / power
    error = np.sqrt(np.mean(rest**2) / power)
    if abs(slope) < PLAIN * error:
        return np.ones(len(t))
    # The first samples lie far out in t, where the slope found in the many others may promise more
    # noise than there is, and would hide what training does first.
    seen = EXCESS * np.median(sizes[:EARLIEST][moved[:EARLIEST]] if moved[:EARLIEST].any() else 0.0)
    trend = slope * (t - t.mean())
    ceiling = max(float(np.log(seen)) - center, 0.0) if seen > 0 else 0.0
    # They say nothing of the late samples: noise that grows must be free to.
    trend = np.where(t < t.mean(), np.minimum(trend, ceiling), trend)
    return np.exp(np.clip(trend, -np.log(LIMIT), np.log(LIMIT)))
