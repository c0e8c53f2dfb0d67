"""What the chosen measures see of a checkpoint, and of those before it: each computed once.

Memory is what the measures keep: the matrices of the present layer, and where a measure looks back,
those of one recorded step before, of the first and of the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ndt_offline.errors import NdtError
from ndt_offline.measure.plugin import Measure, View, missing
from ndt_offline.replay.history import Spot
from ndt_offline.replay.setup import Setup, layers_of
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Run
from ndt_offline.run.tensors import to_torch
from ndt_offline.store.results import WHOLE

Kept = dict[tuple[str, int], Any]  # {(measure, number of the layer): what is kept of its matrix}
Fetch = Callable[[str], tuple[int, Decoded] | None]  # of a need such as `previous`: that row
Watch = Callable[[int, Any], None]  # told the number of a layer and its matrix [rows, features]
Forward = Callable[[Decoded, Watch], str]  # the probe through a checkpoint, watched; its problem
Table = Mapping[str, Mapping[str, float]]  # {layer: {name: number}}
State = Mapping[str, torch.Tensor]
Kinds = Mapping[str, Callable[[State, Spot], Table]]  # by need, of a checkpoint

# The places of a View that other rows fill.
PLACES = {"previous": "before", "before_previous": "before2", "first": "first", "last": "last"}
FAULTS = (ArithmeticError, MemoryError, ValueError, RuntimeError)  # of one checkpoint, not of all
LOOKS_BACK = {"previous": 1, "before_previous": 2, "curvature": 1}  # rows
REMEMBERED = 4  # rows whose activations are kept: this one, the one before, the first, the last


@dataclass
class Sight:
    """One row as it is being looked at: values by measure, and what went wrong."""

    values: dict[str, np.ndarray]
    problems: dict[str, str] = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)
    finished: bool = False

    def of(self, measures: Mapping[str, Measure], *spaces: str) -> list[str]:
        return [name for name in self.values if measures[name].space in spaces]


class Witness:
    """The measures of one process, and what they asked of other rows.

    numbers: by need (`gradients`, `curvature`), what computes them for one checkpoint.
    labels: the class of each row of a matrix with that many rows, and the sample it is of.
    """

    def __init__(
        self,
        setup: Setup,
        measures: Mapping[str, Measure],
        forward: Forward,
        labels: Callable[[int], tuple[np.ndarray | None, np.ndarray | None]],
        numbers: Kinds,
    ) -> None:
        self._setup, self._measures = setup, dict(measures)
        self._forward, self._labels, self._numbers = forward, labels, numbers
        self._past: dict[int, Kept] = {}
        self._rows: dict[int, Decoded] = {}
        self._states: deque[tuple[Decoded, State]] = deque(maxlen=REMEMBERED)

    def recall(self, row: int) -> Decoded | None:
        """The checkpoint of a row that was looked at shortly before, in this block or the last."""
        return self._rows.get(row)

    def remember(self, row: int, decoded: Decoded) -> None:
        """Keep a row's checkpoint for those that look back at it."""
        back = [
            LOOKS_BACK[need]
            for m in self._measures.values()
            for need in m.needs & LOOKS_BACK.keys()
        ]
        if back:
            self._rows[row] = decoded
            far = [old for old in self._rows if not row - max(back) <= old <= row + max(back)]
            for old in (*far, *sorted(self._rows)[: -max(back) - 1]):
                self._rows.pop(old, None)

    def watches(self, names: Collection[str]) -> bool:
        """Whether these measures look at activations."""
        return any(self._measures[name].space == "activations" for name in names)

    def open(self, names: Collection[str]) -> Sight:
        """An empty sight of these measures."""
        empty = {}
        for name, measure in self._measures.items():
            if name in names:
                layers = layers_of(measure, self._setup)
                empty[name] = np.full((len(layers), len(measure.names)), np.nan)
        return Sight(empty)

    def see(self, sight: Sight, fetch: Fetch, updates: int = 0) -> Watch:
        """What is told each layer's matrix as the probe passes; looks up the rows behind first.

        updates: since the row before.
        """
        names = sight.of(self._measures, "activations")
        layers = self._setup.spaces[0].layers
        past = {PLACES[need]: kept for need, kept in self._behind(sight, names, fetch).items()}

        def watch(index: int, matrix: Any) -> None:
            for name in names:
                measure = self._measures[name]
                if missing(measure, len(matrix)):
                    continue
                now = measure.prepare(matrix) if measure.prepare else matrix
                if measure.needs & PLACES.keys():
                    sight.kept[name, index] = now if measure.prepare else now.copy()
                given: dict[str, Any] = {
                    place: kept.get((name, index)) for place, kept in past.items()
                }
                if "labels" in measure.needs:
                    given["labels"], given["samples"] = self._labels(len(matrix))
                about = (layers[index].name, layers[index].kind, updates)
                self._put(sight, name, index, View(*about, now=now, **given))

        return watch

    def weigh(self, sight: Sight, decoded: Decoded, fetch: Fetch, spot: Spot) -> None:
        """The measures of weights, and those of the model as a whole."""
        names = sight.of(self._measures, "weights", "model")
        needs = {need for name in names for need in self._measures[name].needs}
        found = {need: fetch(need) for need in needs & PLACES.keys()}
        states = {PLACES[need]: self.state(row[1]) for need, row in found.items() if row}
        states["now"] = self.state(decoded)
        tables = self._tables(sight, needs, states["now"], spot)
        kinds = {layer.name: layer.kind for layer in self._setup.spaces[1].layers}
        for name in names:
            if name in sight.problems:
                continue
            layers = layers_of(self._measures[name], self._setup)
            for index, layer in enumerate(layers):
                given: dict[str, Any] = {
                    place: _matrix(state.get(layer)) for place, state in states.items()
                }
                given |= {kind: table.get(layer) for kind, table in tables.items()}
                if given["now"] is not None or self._measures[name].space == "model":
                    about = (layer, kinds.get(layer, WHOLE.kind), spot.updates)
                    self._put(sight, name, index, View(*about, **given))

    def _tables(
        self, sight: Sight, needs: Collection[str], state: State, spot: Spot
    ) -> dict[str, Table]:
        """What gradients and the like give; where they fail, the measures that need them do."""
        tables = {}
        for kind in sorted(needs & self._numbers.keys()):
            try:
                tables[kind] = self._numbers[kind](state, spot)
            except (NdtError, *FAULTS) as error:
                asking = [name for name in sight.values if kind in self._measures[name].needs]
                said = f"{kind}: {type(error).__name__}: {error}"
                sight.problems |= dict.fromkeys(asking, said)
        return tables

    def keep(self, row: int, sight: Sight) -> None:
        """Remember what the next rows will ask of this one."""
        if sight.kept:
            self._past[row] = self._past.pop(row, {}) | sight.kept
            while len(self._past) > REMEMBERED:
                self._past.pop(next(iter(self._past)))

    def _behind(self, sight: Sight, names: Collection[str], fetch: Fetch) -> dict[str, Kept]:
        """{need: what is kept of that row}, from memory where it is there."""
        rows = {}
        needs = {need for name in names for need in self._measures[name].needs}
        for need in sorted(needs & PLACES.keys()):
            found = fetch(need)
            if found is not None:
                asking = [name for name in names if self._measures[name].needs & PLACES.keys()]
                rows[need], problem = self._remembered(*found, asking)
                if problem:  # it may be memory that is there tomorrow
                    lacking = [name for name in asking if need in self._measures[name].needs]
                    sight.problems |= dict.fromkeys(lacking, f"the row behind: {problem}")
        return rows

    def _remembered(self, row: int, decoded: Decoded, names: Collection[str]) -> tuple[Kept, str]:
        """What is kept of that row, and what went wrong when it was looked at again."""
        known = self._past.pop(row, {})
        self._past[row] = known  # the last to be asked for is the last to be forgotten
        problem = ""
        unseen = set(names) - {name for name, _ in known}
        if unseen:
            other = self.open(unseen)
            problem = self._forward(decoded, self.see(other, lambda need: None))
            self.keep(row, other)
        return self._past[row], problem

    def state(self, decoded: Decoded) -> State:
        """Tensors of a checkpoint; they are views, and those of the last few are kept."""
        for known, state in self._states:
            if known is decoded:
                return state
        state = to_torch(decoded.layout, decoded.vectors)
        self._states.append((decoded, state))
        return state

    def _put(self, sight: Sight, name: str, index: int, view: View) -> None:
        measure = self._measures[name]
        try:
            with np.errstate(all="ignore"):
                found = measure.compute(view)
            row = np.array([found.get(quantity, np.nan) for quantity in measure.names], np.float64)
        except (ArithmeticError, ValueError, TypeError, np.linalg.LinAlgError, NdtError) as error:
            said = f"{view.layer}: {type(error).__name__}: {error}"
            sight.problems.setdefault(name, said)
            return
        sight.values[name][index] = np.where(np.isfinite(row), row, np.nan)


def _matrix(tensor: torch.Tensor | None) -> np.ndarray | None:
    """A parameter as [out, rest], float32 or float64."""
    if tensor is None or tensor.ndim == 0:
        return None
    known = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    matrix: np.ndarray = known.reshape(len(tensor), -1).numpy()
    return matrix


def make_witness(
    run: Run, setup: Setup, measures: Mapping[str, Measure], forward: Forward
) -> Witness:
    """A witness that knows the probe, where a measure needs it."""
    from ndt_offline.replay.labels import Labels

    numbers: Kinds = {}
    if any(measure.needs & {"gradients", "curvature"} for measure in measures.values()):
        from ndt_offline.replay.numbers import Numbers

        numbers = Numbers(run, setup).kinds
    return Witness(setup, measures, forward, Labels(run, setup), numbers)
