"""Labels: the class of each row of a layer's matrix, from the probe's targets."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ndt_offline.replay.setup import Setup, probe_path
from ndt_offline.run.probe import load_probe
from ndt_offline.run.reader import Run


class Labels:
    """Called with the rows of a matrix, gives a class for each [rows], and the sample that each is
    of where a sample has several; or None.

    A matrix has a row per sample, or one per token where the targets are tokens; a target that
    does not count in the loss is negative.
    """

    def __init__(self, run: Run, setup: Setup) -> None:
        self._run, self._setup = run, setup

    def __call__(self, rows: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        classes, samples = self._classes
        if classes is None or len(classes) != rows:
            return None, None
        return classes, samples

    @cached_property
    def _classes(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        probe = load_probe(probe_path(self._run, self._setup.parameters))
        if probe is None or probe.targets is None:
            return None, None
        targets = probe.targets
        if targets.is_floating_point():
            if targets.ndim != 2 or targets.shape[1] < 2:
                return None, None
            targets = targets.argmax(1)  # shares of classes: the largest
        classes: np.ndarray = targets.reshape(-1).numpy().astype(np.int64)
        several = targets.ndim > 1 and len(targets) < len(classes)
        each = len(classes) // max(len(targets), 1)
        return classes, np.arange(len(classes)) // each if several else None
