"""Noise that calms down, or grows, along training: one power, and only where it is plain."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.gaps import Bools
from ndt_offline.relate.ranks import Floats

# Second differences share samples, so the textbook standard error is too small; six of it are
# about four honest ones. A power of step + c with a late c moves the first samples little where
# it is wrong, and less is asked of it.
PLAIN, PLAIN_LATE = 6.0, 4.0
# c as shares of the training.
DELAYS = (0.01, 0.1, 0.5)
FEWEST = 50
LIMIT = 100.0
# No early sample is thought noisier than e^EXCESS times the median of the first ones, nor quieter
# by as much.
EXCESS, EARLIEST = float(np.log(2.0)), 16


def volatility(values: Floats, t: Floats) -> Floats:
    """Relative size of the noise of each row [k, n] along t [n]: (step + c)^b, geometric mean 1.

    b is the slope of log |second difference|, where trends have no part, on log(step + c); c is 1,
    or of noise that grows a hundredth, a tenth or half of training if that fits better: a power of
    step + 1 that grows late would promise the first samples hardly any. b is 0 unless plain:
    a wrong one does more harm to the first few samples, which weigh most in t = log(step + 1), than
    a true but weak one. Never more than a factor of 100 from the mean; nor, before the mean of t,
    more than twice what the first 16 samples show, nor less than half of it.
    """
    sizes = np.abs(np.diff(values, n=2, axis=1))
    return np.vstack([_curve(row, t) for row in sizes]) if len(values) else np.ones(values.shape)


def _curve(sizes: Floats, t: Floats) -> Floats:
    moved = sizes > 0
    if moved.sum() < max(FEWEST, len(sizes) / 2):
        return np.ones(len(t))
    y = np.log(sizes[moved])
    center = y.mean()
    shape, slope = _likeliest(t, moved, y - center)
    if slope == 0:
        return np.ones(len(t))
    trend = slope * (shape - shape.mean())
    # The first samples lie far out in t, where the slope found in the many others may promise more
    # noise than there is, and would hide what training does first; or less, and would see bends in
    # noise. They say nothing of the late samples: noise that grows must be free to.
    first = sizes[:EARLIEST][moved[:EARLIEST]]
    seen = float(np.log(np.median(first))) - center if len(first) else -np.inf
    held = np.clip(trend, min(seen - EXCESS, 0.0), max(seen + EXCESS, 0.0))
    trend = np.where(t < t.mean(), held, trend)
    return np.exp(np.clip(trend, -np.log(LIMIT), np.log(LIMIT)))


def _likeliest(t: Floats, moved: Bools, y: Floats) -> tuple[Floats, float]:
    """The shape along training [n] that log sizes y follow best, and its slope; 0 unless plain."""
    steps = np.expm1(t)
    delays = [1.0, *(share * steps[-1] for share in DELAYS)]
    shapes = [np.log(steps + delay) for delay in delays]
    fits = [_line(shape[1:-1][moved], y) for shape in shapes]
    # A delay would say too little of how loud noise that calms down was at the start.
    best = min(range(len(fits)), key=lambda i: fits[i][2] if i == 0 or fits[i][0] > 0 else np.inf)
    slope, error, _ = fits[best]
    plain = PLAIN if best == 0 else PLAIN_LATE
    return shapes[best], slope if abs(slope) >= plain * error else 0.0


def _line(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Slope of y of mean 0 on x, its textbook error, the mean square left."""
    x = x - x.mean()
    power = x @ x
    slope = (x @ y) / power
    # A size near zero has a logarithm far below; it must not steer the slope.
    rest = y - slope * x
    rest = np.clip(rest, *np.quantile(rest, [0.02, 0.98]))
    slope += (x @ rest) / power
    left = float(np.mean(rest**2))
    return float(slope), float(np.sqrt(left / power)), left
