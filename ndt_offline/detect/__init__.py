"""Transitions in series, with evidence: pure functions of arrays, no files.

Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndt_offline.detect.detectors import DETECTORS, Detector, detect
    from ndt_offline.detect.transition import Transition

__all__ = ["DETECTORS", "Detector", "Transition", "detect"]

_HOME = {
    "DETECTORS": "detectors",
    "Detector": "detectors",
    "detect": "detectors",
    "Transition": "transition",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ndt_offline.detect' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ndt_offline.detect.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
