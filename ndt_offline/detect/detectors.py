"""The detectors by name, and `detect`, which runs one of them over one series."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ndt_offline.detect.custom import load_rule
from ndt_offline.detect.transition import Array, Steps, Transition
from ndt_offline.errors import UsageError, nearest

Rule = Callable[..., list[Transition]]


@dataclass(frozen=True)
class Detector:
    """A rule `(values [n], steps [n], **params) -> transitions`, known by where it lives.

    `sweeps` says that the rule's `threshold` only drops transitions from what a lower threshold
    finds, so that stored peaks answer every higher threshold; `floor` is the lowest one stored.
    `own` marks a user's own function.
    """

    name: str
    home: str
    sweeps: bool = False
    floor: float = float("nan")
    own: bool = False

    @property
    def rule(self) -> Rule:
        """The function itself, imported now. A user's own is wrapped: see `custom.load_rule`."""
        if self.own:
            return load_rule(self.home)
        module, _, function = self.home.partition(":")
        return getattr(import_module(module), function)

    @property
    def defaults(self) -> dict[str, Any]:
        """Every parameter of the rule with its default."""
        parameters = inspect.signature(self.rule).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def params(self, **given: Any) -> dict[str, Any]:
        """Defaults with what was given; an unknown name is a `UsageError`."""
        if self.own:
            return given
        known = self.defaults
        for name in given:
            if name not in known:
                raise UsageError(
                    f"detector {self.name!r} has no parameter {name!r}",
                    remedy=nearest(name, sorted(known)) if known else None,
                )
        return known | given


_HERE = "ndt_offline.detect."
DETECTORS: dict[str, Detector] = {
    "steps": Detector("steps", _HERE + "gls:find_steps", sweeps=True, floor=4.0),
    "segments": Detector("segments", _HERE + "segmentation:find_segments"),
    "baseline": Detector("baseline", _HERE + "onset:find_onsets"),
    "zscore": Detector("zscore", _HERE + "rolling:zscore", sweeps=True, floor=2.0),
}


def find_detector(name: str) -> Detector:
    """The detector of that name; an unknown one is a `UsageError` with the known ones."""
    if name in DETECTORS:
        return DETECTORS[name]
    if ":" in name:
        return Detector(name, name, own=True)
    raise UsageError(
        f"unknown detector {name!r}",
        remedy=nearest(name, DETECTORS) + ", or your own as package.module:function",
    )


def detect(
    values: Any, steps: Any = None, detector: str = "steps", **params: Any
) -> list[Transition]:
    """Transitions of one series: values [n], training steps [n] (default 0, 1, 2, ...).

    `detector` is a name in `DETECTORS` or a user's own `package.module:function`; `params` are
    that detector's parameters. Values may be NaN (a missing measurement).
    """
    x, at = as_series(values, steps)
    chosen = find_detector(detector)
    return chosen.rule(x, at, **chosen.params(**params))


def as_series(values: Any, steps: Any = None) -> tuple[Array, Steps]:
    """Values as float64 [n] and their training steps [n], checked."""
    x = np.ascontiguousarray(values, np.float64)
    if x.ndim != 1:
        raise UsageError(f"a series has one dimension, this has {x.ndim}")
    at = np.arange(len(x)) if steps is None else np.asarray(steps)
    if at.shape != x.shape:
        raise UsageError(f"{len(x)} values but {at.size} steps")
    if len(at) > 1 and not np.all(at[1:] > at[:-1]):
        raise UsageError("steps must increase")
    return x, at
