"""The catalogue of measures, and the choice of some by name."""

from __future__ import annotations

from collections.abc import Sequence

from ndt_offline.errors import UsageError
from ndt_offline.measure.activations import (
    DIMENSION,
    SEPARABILITY,
    SIMILARITY,
    SIMILARITY_LAST,
    UNITS,
)
from ndt_offline.measure.gap import GENERALISATION
from ndt_offline.measure.metrics import METRICS
from ndt_offline.measure.own import load_measure
from ndt_offline.measure.plugin import Measure
from ndt_offline.measure.slopes import CURVATURE, GRADIENTS, NOISE_SCALE
from ndt_offline.measure.weights import LEARNING_RATE, MOTION

SPECTRA = "spectra"  # always there: every other measure stands beside them
ALL = "all"
_OURS = (
    MOTION, UNITS, SIMILARITY, SIMILARITY_LAST, SEPARABILITY, DIMENSION,
    GRADIENTS, NOISE_SCALE, LEARNING_RATE, CURVATURE, GENERALISATION,
)  # fmt: skip
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _OURS}


def choose_measures(names: Sequence[str]) -> dict[str, Measure]:
    """{how it is named: measure}, from names of `MEASURES` and `package.module:function`.

    `spectra` is understood and is always there; `all` is every measure of ours. Raises UsageError
    with the names there are, and for two measures that return one name.
    """
    chosen: dict[str, Measure] = {}
    for name in names:
        if name == ALL:
            chosen |= MEASURES
        elif ":" in name:
            chosen[name] = load_measure(name)
        elif name in MEASURES:
            chosen[name] = MEASURES[name]
        elif name != SPECTRA:
            known = ", ".join([SPECTRA, *MEASURES, ALL])
            raise UsageError(
                f"measure {name!r} is not known",
                remedy=f"one of: {known}; your own with --measure package.module:function",
            )
    _check_names(chosen)
    return chosen


def _check_names(chosen: dict[str, Measure]) -> None:
    owner = dict.fromkeys((*METRICS, "rows", "columns", "kind", "status"), SPECTRA)
    for spec, measure in chosen.items():
        if measure.name in MEASURES and MEASURES[measure.name] is not measure:
            raise UsageError(f"measure {spec!r} is named {measure.name!r}, as one of ours is")
        for name in (*measure.names, f"measure {measure.name}"):
            if name in owner:
                raise UsageError(f"{name!r} is returned by {owner[name]} and by {spec}")
            owner[name] = spec
