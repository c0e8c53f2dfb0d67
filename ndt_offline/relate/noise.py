"""The noise around a trend: ARMA(4, 1) fitted, simulated, its covariance between bin means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndt_offline.relate.bins import Bins
from ndt_offline.relate.ranks import Floats

Draws = NDArray[np.complex128]

ORDER = 4
# Reflection coefficients stay this far inside the unit interval: beyond lies the random walk.
LIMIT = 0.9995


@dataclass(frozen=True)
class Noise:
    """ARMA(4, 1) noise of D series: reflection coefficients [D, 4], standard deviations [D].

    x_t = sum_j phi_j x_(t-j) + e_t - average e_(t-1): an average near 1 is white noise on top of
    slow noise, of which four lags alone see little. Reflection coefficients (partial
    autocorrelations) of phi inside (-1, 1) are exactly the stationary processes, so they can be
    shifted and drawn without ever leaving them.
    """

    reflection: Floats
    deviation: Floats
    average: float = 0.0

    def rows(self, part: slice) -> Noise:
        """Some of the processes."""
        return Noise(self.reflection[part], self.deviation[part], self.average)

    def moved(self, bend: Floats, stretch: Floats) -> Noise:
        """With artanh of the reflections shifted by `bend`, log of the deviation by `stretch`."""
        turned = np.tanh(np.arctanh(self.reflection) + bend)
        deviation = self.deviation * np.exp(stretch)
        return Noise(np.clip(turned, -LIMIT, LIMIT), deviation, self.average)


def fit_noise(residuals: Floats, average: float = 0.0) -> Noise:
    """ARMA(4, 1) of rows [D, n] of mean 0 under a moving average that is known.

    A perfect fit leaves a deviation of 1e-9, not 0: rows come in units of their own spread.
    """
    power = np.einsum("dn,dn->d", residuals, residuals) / residuals.shape[1]
    reflection = burg(unaveraged(residuals, average) if average else residuals)[0]
    return Noise(np.clip(reflection, -LIMIT, LIMIT), np.sqrt(power + 1e-18), average)


def unaveraged(rows: Floats, average: float | Floats) -> Floats:
    """Rows [D, n] with 1 - average B undone, by one for all or by one of each row [D, 1]."""
    n = rows.shape[1]
    size = circle(n)
    inverse = 1 - average * np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    return np.fft.irfft(np.fft.rfft(rows, size, axis=1) / inverse, size, axis=1)[:, :n]


def burg(rows: Floats) -> tuple[Floats, Floats]:
    """Burg's (1975) AR(4) of rows [D, n]: reflection coefficients [D, 4], power unexplained [D]."""
    forward, backward = rows[:, 1:], rows[:, :-1]
    reflection = np.zeros((len(rows), ORDER))
    for order in range(ORDER):
        cross = np.einsum("dn,dn->d", forward, backward)
        total = np.einsum("dn,dn->d", forward, forward)
        total = total + np.einsum("dn,dn->d", backward, backward)
        k = np.divide(2 * cross, total, out=np.zeros_like(cross), where=total > 0)
        reflection[:, order] = k
        if order + 1 < ORDER:
            shorter = forward - k[:, None] * backward, backward - k[:, None] * forward
            forward, backward = shorter[0][:, 1:], shorter[1][:, :-1]
    return reflection, total * (1 - k**2) / (2 * forward.shape[1])


def coefficients(reflection: Floats) -> Floats:
    """AR coefficients phi [D, 4] of x_t = sum_j phi_j x_(t-j) + e_t, by Levinson's recursion."""
    phi = np.zeros((len(reflection), 0))
    for order in range(reflection.shape[1]):
        k = reflection[:, order : order + 1]
        phi = np.hstack([phi - k * phi[:, ::-1], k])
    return phi


def gains(noise: Noise, size: int) -> Floats:
    """|transfer function| [D, size // 2 + 1] scaled so that the process has its deviation."""
    phi = coefficients(noise.reflection)
    padded = np.zeros((len(phi), size))
    padded[:, 0], padded[:, 1 : ORDER + 1] = 1.0, -phi
    response = np.fft.rfft(padded, axis=1)
    gain = 1 / np.sqrt(response.real**2 + response.imag**2)
    if noise.average:
        gain *= np.abs(np.fft.rfft([1.0, -noise.average], size))
    weight = np.full(gain.shape[1], 2.0)
    weight[0] = weight[-1] = 1.0
    mean_power = (gain**2 @ weight) / size
    return gain * (noise.deviation / np.sqrt(mean_power))[:, None]


def persistence(noise: Noise) -> float:
    """Correlation of one process from one sample to the next."""
    own = np.fft.irfft(gains(noise, circle(0))[0] ** 2, circle(0))
    return float(own[1] / own[0])


def circle(n: int) -> int:
    """Length on which n samples are simulated: longer by enough that its ends do not meet."""
    return -(-(n + 512) // 240) * 240


def raw_draws(draws: int, n: int, seed: int) -> Draws:
    """White noise in the frequency domain [draws, circle(n) // 2 + 1], for `simulate`."""
    rng = np.random.default_rng(seed)
    size = circle(n)
    flat = rng.normal(size=(2, draws, size // 2 + 1)) * np.sqrt(size / 2)
    white = flat[0] + 1j * flat[1]
    white[:, [0, -1]] = flat[0][:, [0, -1]] * np.sqrt(2)
    return white


def simulate(noise: Noise, white: Draws, n: int) -> Floats:
    """Rows [D, n] of `noise` (one process, or one per draw) made from `raw_draws`."""
    return np.fft.irfft(white * gains(noise, circle(n)), circle(n), axis=1)[:, :n]


def bin_covariance(noise: Noise, bins: Bins) -> Floats:
    """Covariance of the bin means of one process: [B, B]."""
    n = len(bins.t)
    own = np.fft.irfft(gains(noise, circle(n))[0] ** 2, circle(n))[:n]
    # Summed twice, the autocovariance gives every rectangle of it by four values.
    once = np.cumsum(own) - own[0] / 2
    twice = np.concatenate([[0.0], np.cumsum(once)])
    apart = bins.starts[None, :] - bins.starts[:, None]
    m_i, m_j = bins.sizes[:, None], bins.sizes[None, :]
    corners = twice[np.abs(apart + m_j)] + twice[np.abs(apart - m_i)]
    corners = corners - twice[np.abs(apart)] - twice[np.abs(apart + m_j - m_i)]
    return corners / (m_i * m_j)
