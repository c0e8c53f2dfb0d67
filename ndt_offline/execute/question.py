"""A question to stored spectra: everything that can be asked again without a replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from ndt_offline.errors import UsageError
from ndt_offline.measure.metrics import METRICS, choose_metrics

TARGETS = ("loss", "grad_norm", "probe_loss")


@dataclass(frozen=True)
class Question:
    """Metrics to derive, the detector and its parameters, and how couplings are computed.

    metrics: names of `measure.METRICS`, and `components_K` for any percentage K.
    measures: names of measures in the store whose series are looked at as metrics' are.
    detector: a name of `detect.DETECTORS`, or `package.module:function`.
    threshold: of the detector; None is its own default.
    params: further parameters of the detector.
    draws: series of matched noise per series.
    seed: of matched noise and of the phases' bootstrap.
    smooth: also give rho after a centred mean of this many samples.
    targets: journal scalars and, as `probe_loss`, quantities of the probe.
    phases: metrics whose phases are fitted; None: as many as `PHASED` series allow.
    phase_draws: of the phases' bootstrap; 0 fits three phases without a test or intervals.
    sweep: thresholds to count transitions at; None: 25 from the lowest that is stored.
    """

    metrics: tuple[str, ...] = tuple(METRICS)
    detector: str = "steps"
    threshold: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 10
    seed: int = 0
    smooth: int | None = None
    targets: tuple[str, ...] = TARGETS
    phases: tuple[str, ...] | None = None
    phase_draws: int = 99
    sweep: tuple[float, ...] | None = None
    measures: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UsageError for an unknown metric, detector or parameter, or a number that is none.

        Before anything is computed: a replay can take hours.
        """
        from ndt_offline.detect.detectors import find_detector

        choose_metrics(self.metrics)
        find_detector(self.detector).params(**self.params)
        numbers = {"threshold": self.threshold or 0.0, **self.params}
        numbers |= {f"sweep[{i}]": level for i, level in enumerate(self.sweep or ())}
        for name, value in numbers.items():
            if isinstance(value, int | float) and not isfinite(value):
                raise UsageError(f"{name} = {value}: expected a finite number")
