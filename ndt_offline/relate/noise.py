"""The noise around a trend: AR(4) fitted, simulated, and its covariance between bin means."""

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
    """AR(4) noise of D series: reflection coefficients [D, 4] and standard deviations [D].

    Reflection coefficients (partial autocorrelations) inside (-1, 1) are exactly the stationary
    processes, so they can be shifted and drawn without ever leaving them.
    """

    reflection: Floats
    deviation: Floats

    def rows(self, part: slice) -> Noise:
        """Some of the processes."""
        return Noise(self.reflection[part], self.deviation[part])

    def moved(self, bend: Floats, stretch: Floats) -> Noise:
        """With artanh of the reflections shifted by `bend`, log of the deviation by `stretch`."""
        turned = np.tanh(np.arctanh(self.reflection) + bend)
        return Noise(np.clip(turned, -LIMIT, LIMIT), self.deviation * np.exp(stretch))


def fit_noise(residuals: Floats) -> Noise:
    """Burg's (1975) AR(4) of rows [D, n], which are taken to have mean 0.

    A perfect fit leaves a deviation of 1e-9, not 0: rows come in units of their own spread.
    """
    forward, backward = residuals[:, 1:], residuals[:, :-1]
    reflection = np.zeros((len(residuals), ORDER))
    power = np.einsum("dn,dn->d", residuals, residuals) / residuals.shape[1]
    for order in range(ORDER):
        cross = np.einsum("dn,dn->d", forward, backward)
        total = np.einsum("dn,dn->d", forward, forward)
        total = total + np.einsum("dn,dn->d", backward, backward)
        k = np.divide(2 * cross, total, out=np.zeros_like(cross), where=total > 0)
        reflection[:, order] = k
        if order + 1 < ORDER:
            shorter = forward - k[:, None] * backward, backward - k[:, None] * forward
            forward, backward = shorter[0][:, 1:], shorter[1][:, :-1]
    return Noise(np.clip(reflection, -LIMIT, LIMIT), np.sqrt(power + 1e-18))


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
    weight = np.full(gain.shape[1], 2.0)
    weight[0] = weight[-1] = 1.0
    mean_power = (gain**2 @ weight) / size
    return gain * (noise.deviation / np.sqrt(mean_power))[:, None]


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
