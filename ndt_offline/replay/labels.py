"""Labels: the class of each row of a layer's matrix, from the probe's targets."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ndt_offline.replay.setup import Setup, probe_path
from ndt_offline.run.probe import load_probe
from ndt_offline.run.reader import Run


class Labels:
    """Called with the rows of a matrix, gives a class for each [rows], or None.

    A matrix has a row per sample, or one per token where the targets are tokens; a target that
    does not count in the loss is negative.
    """

    def __init__(self, run: Run, setup: Setup) -> None:
        self._run, self._setup = run, setup

    def __call__(self, rows: int) -> np.ndarray | None:
        classes = self._classes
        return classes if classes is not None and len(classes) == rows else None

    @cached_property
    def _classes(self) -> np.ndarray | None:
        probe = load_probe(probe_path(self._run, self._setup.parameters))
        if probe is None or probe.targets is None:
            return None
        targets = probe.targets
        if targets.is_floating_point():
            if targets.ndim != 2 or targets.shape[1] < 2:
                return None
            targets = targets.argmax(1)  # shares of classes: the largest
        classes: np.ndarray = targets.reshape(-1).numpy().astype(np.int64)
        return classes
