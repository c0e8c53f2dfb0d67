"""How much better one curve explains a series than another, each with noise of its own."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.noise import burg, unaveraged
from ndt_offline.relate.ranks import Floats

# Moving averages that are tried: .95 is slow noise under 20 times its innovations in white noise.
AVERAGES = np.array([0.0, 0.5, 0.65, 0.75, 0.82, 0.88, 0.92, 0.95])
# In log-likelihood: what a moving average must gain over none to be taken.
WORTH = 4.0


def log_likelihoods(residual: Floats) -> Floats:
    """Of one series [n] under ARMA(4, 1) noise with each of `AVERAGES`, but for a constant."""
    rows = unaveraged(np.broadcast_to(residual, (len(AVERAGES), len(residual))), AVERAGES[:, None])
    return -0.5 * len(residual) * np.log(burg(rows)[1] + 1e-18)


def moving_average(residual: Floats) -> float:
    """The likeliest moving average of what a straight line leaves, 0 unless plainly not 0.

    Around the line, not around the fullest curve, which takes slow noise for trend. A bend left
    in does no harm: the autoregression, which is fitted afterwards, undoes an average too many.
    """
    likely = log_likelihoods(residual)
    best = int(np.argmax(likely))
    return float(AVERAGES[best]) if likely[best] > likely[0] + WORTH else 0.0


def gain(residual: Floats, simpler: Floats) -> float:
    """Log-likelihood of what one curve leaves [n] above that of what a simpler one leaves [n].

    Each in the ARMA(4, 1) noise that suits it best: noise as slow as it takes may do for a curve.
    """
    return float(log_likelihoods(residual).max() - log_likelihoods(simpler).max())
