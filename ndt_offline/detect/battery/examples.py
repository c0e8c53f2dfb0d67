"""One series of every kind in the battery, with what is in it and what a detector says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndt_offline.detect.battery.nulls import NULLS
from ndt_offline.detect.battery.positives import POSITIVES
from ndt_offline.detect.battery.validation import rng_of
from ndt_offline.detect.detectors import detect
from ndt_offline.detect.transition import Array, Points


@dataclass(frozen=True)
class Example:
    """kind: null or steps. values [n]; planted, reported: first points of new levels."""

    kind: str
    name: str
    values: Array
    planted: Points
    reported: Points


def battery_examples(
    seed: int,
    detector: str = "steps",
    n: int = 1600,
    sigmas: float = 4.0,
    nulls: Iterable[str] | None = None,
    positives: Iterable[str] | None = None,
    **params: Any,
) -> list[Example]:
    """The first series of every cell of a validation with that seed; steps of `sigmas` local SD.

    Nulls first, in the order of the table. `params` are the detector's.
    """
    nothing = np.zeros(0, np.int64)
    made = [
        ("null", name, NULLS[name](rng_of(seed, name, 0.0, 0), n), nothing)
        for name in (NULLS if nulls is None else nulls)
    ]
    for name in POSITIVES if positives is None else positives:
        made.append(("steps", name, *POSITIVES[name](rng_of(seed, name, sigmas, 0), n, sigmas)))
    return [
        Example(kind, name, x, at, _reported(x, detector, params)) for kind, name, x, at in made
    ]


def _reported(x: Array, detector: str, params: dict[str, Any]) -> Points:
    return np.array([t.index for t in detect(x, detector=detector, **params)], np.int64)
