"""A measure: what a replay can compute of a checkpoint beside its spectra, as plain data.

A measure says what it needs and what it returns; the replay brings what all chosen measures need,
once, and calls `compute` for each layer. Whatever a measure says is a property of the probe, or of
the recorded weights: never of the training batches, which nobody recorded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import UsageError

# What a measure may ask for.
NEEDS = {
    "weights": "the layer's weight as [out, rest]",
    "activations": "the layer's activation matrix [rows, features]",
    "previous": "the same of the recorded step before",
    "before_previous": "the same of the step before that",
    "first": "the same of the first recorded step",
    "last": "the same of the last recorded step; when the run grows, every row is replayed again",
    "labels": "the class of each row of the matrix",
    "gradients": "per-sample gradients on the probe, summed up",
    "curvature": "Hessian-vector products on the probe",
    "probe": "loss and accuracy on the probes, as stored",
}
FORWARD = {"activations", "labels", "gradients", "curvature"}  # what a forward pass is needed for
HISTORY = ("previous", "before_previous", "first", "last")
SPACES = ("activations", "weights", "model")
BROUGHT = {  # what there is for a layer of each space
    "activations": {"activations", "labels", *HISTORY},
    "weights": {"weights", "gradients", *HISTORY},
    "model": {"gradients", "curvature", "probe"},
}
WHOLE = "whole"  # the one layer of the space `model`
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Quantity:
    """One number per layer and step that a measure returns."""

    name: str
    unit: str = "1"
    about: str = ""


@dataclass(frozen=True)
class View:
    """One layer of one checkpoint, with what the measure asked for; None where there is none.

    kind        operation that makes the layer, such as addmm or relu; `weight` for a weight,
                `model` for the whole
    updates     updates of the training since the recorded step before
    now         its matrix: activations [rows, features], or a weight [out, rest]
    before, before2, first, last    the same at other recorded steps
    labels      class of each row [rows], negative where it does not count
    samples     sample of the probe that each row is of [rows], where a sample has several
    gradients   numbers of the layer's per-sample gradients, by name; see `replay.gradients`
    curvature   numbers of the Hessian, by name; see `replay.curvature`
    probe       loss, accuracy, loss_val, accuracy_val as stored

    Matrices are what `Measure.prepare` made of them, where the measure has it.
    """

    layer: str
    kind: str = ""
    updates: int = 0
    now: Any = None
    before: Any = None
    before2: Any = None
    first: Any = None
    last: Any = None
    labels: npt.NDArray[np.int64] | None = None
    samples: npt.NDArray[np.int64] | None = None
    gradients: Mapping[str, float] | None = None
    curvature: Mapping[str, float] | None = None
    probe: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Measure:
    """What is computed, of which layers, from what.

    space: whose layers: `activations`, `weights`, or `model`, which has one layer, `whole`.
    compute: the quantities of one layer; what is missing in its answer is NaN.
    prepare: of a matrix, once per checkpoint: what is kept of it for the steps that follow.
    rows: fewest rows of a layer's matrix; smaller layers are refused by name.
    cost: of a layer of [rows, columns], in operations as the spectra do them: what moves memory
        counts more than its arithmetic. passes: the same in forward passes through all weights.
    params: everything that `compute` was built with; together with `version` its identity.
    """

    name: str
    space: str
    needs: frozenset[str]
    quantities: tuple[Quantity, ...]
    compute: Callable[[View], Mapping[str, float]]
    about: str
    prepare: Callable[[Any], Any] | None = None
    rows: int = 0
    cost: Callable[[int, int], float] = lambda rows, columns: float(rows * columns)
    passes: float = 0.0
    params: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(quantity.name for quantity in self.quantities)

    @property
    def forward(self) -> bool:
        """Whether the probe must go through the graph."""
        return bool(self.needs & FORWARD)

    def check(self) -> Measure:
        """Itself; UsageError for what cannot be a measure."""
        unknown = self.needs - set(NEEDS)
        if unknown:
            raise self._wrong(f"needs {min(unknown)!r}", ", ".join(NEEDS))
        if self.space not in SPACES:
            raise self._wrong(f"is of space {self.space!r}", ", ".join(SPACES))
        if "probe" in self.needs and (len(self.needs) > 1 or self.space != "model"):
            raise self._wrong("needs `probe` beside something else", "the space `model`, no other")
        never = self.needs - BROUGHT[self.space]
        if never:
            what = f"needs {min(never)!r}, which no layer of the space {self.space!r} is given"
            raise self._wrong(what, ", ".join(sorted(BROUGHT[self.space])))
        for name in (self.name, *self.names):
            if not _NAME.fullmatch(name):
                raise self._wrong(f"uses the name {name!r}", "letters a-z, digits and _")
        if not self.names or len(set(self.names)) < len(self.names):
            raise self._wrong("returns nothing, or one name twice", "Quantity(name, unit)")
        return self

    def _wrong(self, what: str, remedy: str) -> UsageError:
        return UsageError(f"measure {self.name!r} {what}", remedy=f"one of: {remedy}")


def missing(measure: Measure, rows: int) -> str:
    """Why a layer with that many rows is refused, or nothing."""
    short = rows < measure.rows
    return f"{rows} rows, {measure.rows} are the least that {measure.name} needs" if short else ""
