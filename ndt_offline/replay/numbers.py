"""Numbers of gradients and curvature for measures, by layer, from one checkpoint of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property

import torch

from ndt_offline.graph import Graph
from ndt_offline.measure.noise_scale import gradient_numbers
from ndt_offline.measure.plugin import WHOLE
from ndt_offline.replay.curvature import Curvature, Sharpness
from ndt_offline.replay.gradients import SampleGradients
from ndt_offline.replay.history import CHAIN, Spot
from ndt_offline.replay.setup import Setup, load_graph_and_probe, probe_path
from ndt_offline.run.probe import Probe
from ndt_offline.run.reader import Run
from ndt_offline.storage.location import locate

State = Mapping[str, torch.Tensor]
Earlier = Callable[[int], State | None]  # of a row shortly before: its weights, if readable
Table = Mapping[str, Mapping[str, float]]  # {layer: {name: number}}
Kind = Callable[[State, Spot], Table]
TOLERANCE = 1e-6  # of the eigenvalue: the share of the gradient is less exact by its root


class Numbers:
    """The probe and its graph, loaded when the first measure asks; `kinds` by what they need."""

    def __init__(self, run: Run, setup: Setup) -> None:
        self._run, self._setup = run, setup
        self._made: SampleGradients | None = None
        self._starts: dict[int, Curvature | None] = {}  # what the next row is started from
        self.kinds: dict[str, Kind] = {"gradients": self.gradients, "curvature": self.curvature}

    def gradients(self, state: State, spot: Spot) -> Table:
        """`measure.noise_scale.gradient_numbers` of every parameter, and of the whole."""
        with torch.enable_grad():
            sums = self.maker(state).sums(state)
        rows = zip(sums.squared, sums.along, sums.direction, strict=True)
        table = {name: gradient_numbers(*row) for name, row in zip(sums.names, rows, strict=True)}
        # A checkpoint may keep a tied tensor under another of its names than the graph does.
        for slot in self._graph_and_probe[0].document.parameters:
            if slot.key in table:
                table |= dict.fromkeys(slot.aliases, table[slot.key])
        return table | {WHOLE: gradient_numbers(*sums.whole)}

    def curvature(self, state: State, spot: Spot) -> Table:
        """The leading eigenvalue of the whole model's Hessian, its residual, the gradient's share.

        Started from the eigenvector of the row before, but anew at every `CHAIN`th row: so the
        numbers do not depend on where a replay began.
        """
        start, whole = self._start(spot.row, spot.earlier)
        found = self._found(state, start)
        self._starts = {spot.row: _finite(found)} if whole else {}
        numbers = {"value": found.value, "residual": found.leading.residual}
        return {WHOLE: numbers | {"alignment": found.alignment}}

    def _start(self, row: int, earlier: Earlier) -> tuple[Curvature | None, bool]:
        """What a row is started from, and whether every row behind it could be read.

        Nothing is kept of a chain with a gap: each row after it asks for the lost one again, and
        so is known to lack it. Kept, the second row after a gap would pass for complete, and stay
        as it is when the file is healed.
        """
        if row % CHAIN == 0:
            return None, True
        if row - 1 in self._starts:
            return self._starts[row - 1], True
        state = earlier(row - 1)
        if state is None:
            return None, False
        start, whole = self._start(row - 1, earlier)
        known = _finite(self._found(state, start))
        if whole:
            self._starts = {row - 1: known}
        return known, whole

    def _found(self, state: State, start: Curvature | None) -> Curvature:
        with torch.enable_grad():
            return self._sharpness.measure(state, start, TOLERANCE)

    @cached_property
    def _sharpness(self) -> Sharpness:
        graph, probe = self._graph_and_probe
        return Sharpness(graph, probe.inputs, probe.targets, self._setup.loss)

    def maker(self, state: State) -> SampleGradients:
        """What knows where the samples are; RefusedError where they cannot be told apart."""
        if self._made is None:
            graph, probe = self._graph_and_probe
            self._made = SampleGradients(
                graph, probe.inputs, probe.targets, self._setup.loss, state
            )
        return self._made

    @cached_property
    def _graph_and_probe(self) -> tuple[Graph, Probe]:
        chosen, run = self._setup.parameters, locate(self._setup.run)
        config = locate(self._setup.config) if self._setup.config else None
        return load_graph_and_probe(run, chosen, probe_path(self._run, chosen), config)


def _finite(found: Curvature) -> Curvature | None:
    """What a next row can be started from."""
    return found if math.isfinite(found.value) else None
