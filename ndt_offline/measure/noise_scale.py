"""Gradient noise on the probe: signal, noise, noise scale, alignment, from sums over samples.

g_i is the gradient of sample i's loss, n the number of samples, m = (1/n) sum g_i. All that is
needed of the gradients are two numbers per sample, for one layer or for all of them together
(sums over layers of both):

    squared [n]   |g_i|^2
    along [n]     g_i . m

With G the expected gradient and S the covariance of g_i over the distribution that the probe was
drawn from, the unbiased estimates are (McCandlish, Kaplan, Amodei et al., arXiv:1812.06162,
appendix A.1, with batches of 1 and of n samples)

    tr S   = (sum |g_i|^2 - n |m|^2) / (n - 1)
    |G|^2  = |m|^2 - tr S / n
    B      = tr S / |G|^2            the simple noise scale, in samples

It is the noise of the probe's samples at the recorded weights, in evaluation mode: not of the
training batches, of dropout, or of augmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GradientNoise:
    """Signal |G|^2 and noise tr S, both unbiased; their ratio B, and its standard error.

    `signal` may come out negative where the probe is too small to see the gradient; `scale` and
    `error` are NaN then. Units: `signal` and `noise` (loss / weight)^2; `scale`, `error` samples.
    """

    samples: int
    norm: float
    signal: float
    noise: float
    scale: float
    error: float

    @property
    def signal_to_noise(self) -> float:
        """|G|^2 / tr S of one sample, 1 / B; may be negative."""
        return self.signal / self.noise if self.noise > 0 else math.nan

    @property
    def critical_batch(self) -> float:
        """The batch size beyond which more samples save few updates: B (McCandlish et al., 2.2).

        A prediction: it holds where the Hessian is near a multiple of the identity, for plain
        gradient descent, and for data like the probe.
        """
        return self.scale


def gradient_noise(squared: Any, along: Any) -> GradientNoise:
    """Signal, noise and noise scale of n >= 3 samples, with its standard error.

    The ratio of the unbiased estimates is too large on average, by about (error / B)^2, but as
    often too large as too small; it is given as it is. Where |G|^2 is lost in its own error the
    ratio may be anything above tr S / (|G|^2 + error of it), and the error is of the size of B.
    """
    squared, along = np.asarray(squared, np.float64), np.asarray(along, np.float64)
    n = len(squared)
    if squared.ndim != 1 or squared.shape != along.shape or n < 3:
        raise UsageError(f"squared {squared.shape}, along {along.shape}: expected 3 samples each")
    total = float(squared.sum())
    # n |m|^2 = sum g_i . m
    length = max(float(along.mean()), 0.0)
    signal, noise = signal_and_noise(length, total, n)
    if not (signal > 0 and math.isfinite(noise)):
        return GradientNoise(n, math.sqrt(length), signal, noise, math.nan, math.nan)
    scale = noise / signal
    error = _error(squared, along, scale, signal)
    return GradientNoise(n, math.sqrt(length), signal, noise, scale, error)


def signal_and_noise(length: Any, total: Any, n: int) -> tuple[Any, Any]:
    """Unbiased |G|^2 and tr S from |m|^2 and sum |g_i|^2 of n >= 2 samples; numbers or arrays."""
    noise = (total - n * length) / (n - 1)
    return length - noise / n, noise


def coherence(squared: Any, along: Any) -> float:
    """Mean inner product of two different samples' gradients over their mean squared norm.

    (n^2 |m|^2 - sum |g_i|^2) / ((n - 1) sum |g_i|^2), in [-1 / (n - 1), 1]: 1 where all gradients
    are equal, 0 in expectation where they share no direction. Samples with large gradients weigh
    more than in `alignment`. (Chatterjee and Zielinski, arXiv:2008.01217, without their bias.)
    """
    squared, along = np.asarray(squared, np.float64), np.asarray(along, np.float64)
    n, total = len(squared), float(squared.sum())
    if n < 2 or not total > 0:
        return math.nan
    return (n * float(along.sum()) - total) / ((n - 1) * total)


def alignment(direction: float, samples: int) -> float:
    """Mean cosine between the gradients of two different samples: (d - n) / (n (n - 1)).

    d = |sum of g_i / |g_i||^2 over the n samples whose gradient is not zero. In [-1 / (n - 1), 1].
    """
    if samples < 2:
        return math.nan
    return (float(direction) - samples) / (samples * (samples - 1))


def gradient_numbers(squared: Any, along: Any, direction: float) -> dict[str, float]:
    """Everything above by name, for one layer: what a measure of gradients stores.

    norm |m|, variance tr S, signal_to_noise, noise_scale and its standard error, critical_batch,
    alignment, coherence. NaN throughout where a gradient is not finite.
    """
    squared, along = np.asarray(squared, np.float64), np.asarray(along, np.float64)
    found = gradient_noise(squared, along)
    return {
        "norm": found.norm,
        "variance": found.noise,
        "signal_to_noise": found.signal_to_noise,
        "noise_scale": found.scale,
        "noise_scale_error": found.error,
        "critical_batch": found.critical_batch,
        "alignment": alignment(direction, int(np.count_nonzero(squared))),
        "coherence": coherence(squared, along),
    }


def _error(squared: Array, along: Array, scale: float, signal: float) -> float:
    """Standard error of t - B s over s, s and t the signal and noise: the jackknife's, which of the
    ratio itself would be anything where leaving one sample out brings the signal near 0.
    """
    n = len(squared)
    # Sums without sample i: |n m - g_i|^2 and sum |g_j|^2.
    length = (n * along.sum() - 2 * n * along + squared) / (n - 1) ** 2
    signals, noises = signal_and_noise(length, squared.sum() - squared, n - 1)
    off = noises - scale * signals
    return math.sqrt((n - 1) / n * float(((off - off.mean()) ** 2).sum())) / signal
