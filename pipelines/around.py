"""Series around a transition that is known: when each moves, and whether it was found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 50  # training steps: a jump is located within 10 samples


@dataclass(frozen=True)
class Known:
    """Training steps: memorised, a tenth, half and nine tenths of the transition, the end."""

    memorised: float
    low: float
    middle: float
    high: float
    end: float


def known(steps: np.ndarray, trained: np.ndarray, held_out: np.ndarray) -> Known | None:
    """The transition of the held-out accuracy; None where it does not pass nine tenths.

    trained, held_out: accuracy on training pairs and on held-out ones, [step].
    """
    smooth = running_median(held_out)
    marks = [first(steps, running_median(trained), 0.99)]
    marks += [first(steps, smooth, level) for level in (0.1, 0.5, 0.9)]
    return None if np.isnan(marks).any() else Known(*marks, float(steps[-1]))


def running_median(values: np.ndarray, width: int = 9) -> np.ndarray:
    """Centred; the ends are padded with the end values."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def trailing_median(values: np.ndarray, width: int = 9) -> np.ndarray:
    """Of each sample and those before it, as one who watches a run has them; [step]."""
    padded = np.pad(values, (width - 1, 0), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def first(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """The first step at which the values reach the level; NaN where they never do."""
    at = np.flatnonzero(values >= level)
    return float(steps[at[0]]) if len(at) else np.nan


def halfway(steps: np.ndarray, values: np.ndarray, when: Known) -> float:
    """The step that parts a series best into its memorising side and its final side.

    Sides: nearer to the median of the first tenth after memorisation, or of the last tenth. NaN
    where the two differ by less than four robust deviations of the samples around a running median,
    and where more than a tenth of the samples lie on the wrong side.
    """
    inside = (steps >= when.memorised) & np.isfinite(values)
    steps, values = steps[inside], values[inside]
    tenth = max(len(values) // 10, 9)
    before, after = np.median(values[:tenth]), np.median(values[-tenth:])
    noise = 1.4826 * np.median(np.abs(values - running_median(values)))
    if abs(after - before) < 4 * noise or after == before:
        return np.nan
    late = np.abs(values - after) < np.abs(values - before)
    # Wrong samples if the side changed at each place: late ones before it, early ones after it.
    wrong = np.r_[0, np.cumsum(late)] + (~late).sum() - np.r_[0, np.cumsum(~late)]
    at = int(np.argmin(wrong))
    return float(steps[min(at, len(steps) - 1)]) if wrong[at] <= 0.1 * len(late) else np.nan


def nearest(places: Sequence[float], when: Known) -> float:
    """The place nearest to the middle in log step, as training steps after it; NaN: none."""
    if not len(places):
        return np.nan
    at = np.maximum(np.asarray(places, np.float64), 1.0)
    return float(at[np.argmin(np.abs(np.log(at / when.middle)))] - when.middle)


def found(places: Sequence[float], when: Known) -> bool:
    """Whether one of the places lies in the transition, give or take the margin."""
    inside = (np.asarray(places) >= when.low - MARGIN) & (np.asarray(places) <= when.high + MARGIN)
    return bool(inside.any())


def chance(places: Sequence[float], when: Known, windows: int = 1000) -> float:
    """The share of windows as long as the transition that hold one of the places.

    Windows begin anywhere between memorisation and the end, uniformly in log step: that is how
    dense in time both jumps and phases are.
    """
    low, high = max(when.low - MARGIN, 1.0), when.high + MARGIN
    length = np.log(high / low)
    starts = np.linspace(np.log(max(when.memorised, 1.0)), np.log(when.end) - length, windows)
    at = np.log(np.maximum(np.asarray(places, np.float64), 1.0))
    inside = (at >= starts[:, None]) & (at <= starts[:, None] + length)
    return float(inside.any(axis=1).mean())
