"""What a detector reports: a discrete step in a series, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Points = NDArray[np.int64]
Steps = NDArray[Any]
Columns = Mapping[str, NDArray[Any]]
NAN = float("nan")


@dataclass(frozen=True)
class Transition:
    """A discrete step in one series. NaN where a detector has no such evidence.

    index     first point of the new level; the step lies between points index - 1 and index
    step      training step of that point (not a sample number, unless no steps were given)
    size      signed, in the units of the series, as estimated
    size_unbiased  the same allowing for selection: overstated as often as understated; 0 just
              above the threshold. `size_low`, `size_high`: nominal 90 % interval, given selection
    low, high training steps that hold the step with nominally 90 % (both ends included)
    sigma     size in local sigma: the SD within 50 points, on either side, about their own mean;
              `sigma_low`, `sigma_high`: `size_low`, `size_high` in the same unit
    T         size over its standard error; for `zscore` the z itself
    Tt        the same under Student-t noise; equals T where the tails are Gaussian
    nu        degrees of freedom of the series' innovations (inf: Gaussian)
    p         chance that a Gaussian series of this length has such a T anywhere
    width     half width of the filter that saw it best, in points
    retained  share of the size that is still there 20 points later: 1 a shift, 0 a shock
    drops_out threshold at which the transition is no longer reported

    Sizes are of steps that passed a test, so small ones are overstated: by about 1.4 at 2 local
    sigma, 1.1 at 3, 1.02 at 4. `size_unbiased` and the 90 % intervals allow for that; under
    |T| = 6 the interval reaches down to 0: there is a step, but its size is not known.
    """

    index: int
    step: int | float
    size: float
    low: float = NAN
    high: float = NAN
    size_unbiased: float = NAN
    size_low: float = NAN
    size_high: float = NAN
    sigma: float = NAN
    sigma_low: float = NAN
    sigma_high: float = NAN
    T: float = NAN
    Tt: float = NAN
    nu: float = NAN
    p: float = NAN
    width: float = NAN
    retained: float = NAN
    drops_out: float = NAN


FIELDS = tuple(field.name for field in fields(Transition))


def to_columns(transitions: list[Transition]) -> dict[str, NDArray[Any]]:
    """One array per field of `Transition`; empty arrays for an empty list.

    `index` is int64, `step` keeps its kind (whole numbers stay whole), all else is float64.
    """
    columns = {
        name: np.asarray([getattr(t, name) for t in transitions], np.float64) for name in FIELDS
    }
    columns["index"] = columns["index"].astype(np.int64)
    if all(isinstance(t.step, int) for t in transitions):
        columns["step"] = columns["step"].astype(np.int64)
    return columns


def from_columns(columns: Columns) -> list[Transition]:
    """The transitions that `to_columns` took apart; columns that are absent stay NaN."""
    names = [name for name in FIELDS if name in columns]
    rows = zip(*(np.asarray(columns[name]).tolist() for name in names), strict=True)
    return [Transition(**dict(zip(names, row, strict=True))) for row in rows]
