"""Rhythms of the clock itself: lines in the spectrum of a target, taken out of it."""

from __future__ import annotations

import numpy as np

from ndt_offline.relate.ranks import Floats

# Finer than the 1 / n between independent frequencies: a line half way between two is found too.
ZOOM = 4
# Power over the local median: white noise of 1600 samples has a few such lines, and loses nothing
# that counts by losing them.
PLAIN = 7.0
MOST = 8
# A line so strong is no chance, and what it repeats goes with it: up to 24 harmonics, fewer in a
# short series.
STRONG, HARMONICS, EACH = 18.0, 24, 64
# Local means so many independent frequencies to each side; no line is slower than SLOWEST / n.
AROUND, SLOWEST = 20, 8


def without_rhythm(rows: Floats) -> Floats:
    """Rows [t, n] of mean near 0 minus their periodic parts: at most 8 lines and what they repeat.

    An epoch comes round in every series, in step with the clock and with nothing else: of
    independent pairs of 1600 samples with a sawtooth of their own sign, as high as the noise's
    deviation, .58 had p <= .05. A line is a frequency whose power is 7 times the local median; it,
    and if it is strong its harmonics, are fitted by sines whose amplitude may change along
    training. What is out of one of a pair cannot couple it to the other: the targets are enough,
    which are few. A short dip once an epoch is many weak lines, and most of it stays.
    """
    return np.stack([_quiet(row) for row in rows]) if len(rows) else rows


def _quiet(row: Floats) -> Floats:
    n = len(row)
    floor = _local_median(_power(row), ZOOM)
    for _ in range(MOST):
        ratio = np.divide(_power(row), floor, out=np.zeros_like(floor), where=floor > 0)
        ratio[: ZOOM * SLOWEST] = 0.0
        best = int(np.argmax(ratio))
        if ratio[best] < PLAIN:
            return row
        harmonics = min(HARMONICS, n // EACH) if ratio[best] > STRONG else 1
        row = row - _sines(row, _peak(ratio, best) / (ZOOM * n), harmonics)
    return row


def _power(row: Floats) -> Floats:
    """Periodogram under a Hann window at every 1 / (4 n), from 0 to 1/2."""
    window = np.hanning(len(row))
    return np.abs(np.fft.rfft(row * window, ZOOM * len(row))) ** 2


def _local_median(power: Floats, zoom: int) -> Floats:
    """Median of the independent frequencies around each."""
    sparse = power[::zoom]
    padded = np.pad(sparse, AROUND, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1)
    median = np.median(windows, axis=1)
    return np.interp(np.arange(len(power)), np.arange(0, len(power), zoom), median)


def _peak(ratio: Floats, best: int) -> float:
    """The top of the parabola through the logarithms of three neighbours."""
    if not 0 < best < len(ratio) - 1 or min(ratio[best - 1], ratio[best + 1]) <= 0:
        return float(best)
    left, top, right = np.log(ratio[best - 1 : best + 2])
    return best + float((left - right) / (2 * (left - 2 * top + right) or -np.inf))


def _sines(row: Floats, frequency: float, harmonics: int) -> Floats:
    """The least-squares sum of sines at a frequency and its harmonics below 1/2."""
    n = len(row)
    repeats = np.arange(1, max(1, harmonics) + 1)
    repeats = repeats[repeats * frequency < 0.5]
    turn = 2 * np.pi * frequency * np.arange(n)[:, None] * repeats
    waves = np.hstack([np.cos(turn), np.sin(turn)])
    design = np.hstack([waves, waves * np.linspace(-1, 1, n)[:, None]])
    return np.asarray(design @ np.linalg.lstsq(design, row, rcond=None)[0])
