"""ndt-offline: training only records; its internal dimensionality is measured afterwards.

Names are loaded on first use, so that importing the package in a training script costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndt_offline.pipeline import analyze
    from ndt_offline.record.recorder import Recorder
    from ndt_offline.run.reader import open_run

__version__ = "0.1.0"
__all__ = ["Recorder", "__version__", "analyze", "open_run"]

_HOME = {
    "Recorder": "ndt_offline.record.recorder",
    "open_run": "ndt_offline.run.reader",
    "analyze": "ndt_offline.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ndt_offline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
