"""Transitions in series, with evidence: pure functions of arrays, no files, no Dask, no torch.

`detect` answers for one series. An analysis stores what `find_peaks` returns for every series and
asks `select`, `counts`, `find_events` at any threshold afterwards. `validate` runs a detector on
series whose truth is known; the generators are in `ndt_offline.detect.battery`.

Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndt_offline.detect.battery.validation import Validation, validate
    from ndt_offline.detect.detectors import DETECTORS, Detector, detect
    from ndt_offline.detect.events import Event, find_events, mark_events
    from ndt_offline.detect.peaks import Peaks, find_peaks, join_peaks, select, transitions
    from ndt_offline.detect.pieces import STATUS
    from ndt_offline.detect.rates import Rates, join_rates, rates_of
    from ndt_offline.detect.surrogates import matched_noise
    from ndt_offline.detect.tally import Counts, counts
    from ndt_offline.detect.transition import Transition

__all__ = [
    "DETECTORS",
    "STATUS",
    "Counts",
    "Detector",
    "Event",
    "Peaks",
    "Rates",
    "Transition",
    "Validation",
    "counts",
    "detect",
    "find_events",
    "find_peaks",
    "join_peaks",
    "join_rates",
    "mark_events",
    "matched_noise",
    "rates_of",
    "select",
    "transitions",
    "validate",
]

_HOME = {
    "DETECTORS": "detectors",
    "Detector": "detectors",
    "detect": "detectors",
    "Transition": "transition",
    "STATUS": "pieces",
    "Peaks": "peaks",
    "find_peaks": "peaks",
    "join_peaks": "peaks",
    "select": "peaks",
    "transitions": "peaks",
    "Counts": "tally",
    "counts": "tally",
    "Event": "events",
    "find_events": "events",
    "mark_events": "events",
    "Rates": "rates",
    "rates_of": "rates",
    "join_rates": "rates",
    "matched_noise": "surrogates",
    "Validation": "battery.validation",
    "validate": "battery.validation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ndt_offline.detect' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ndt_offline.detect.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
