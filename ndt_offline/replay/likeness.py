"""How alike layers are at chosen steps: linear CKA of every two, from the probe through the graph.

CKA(X, Y) = |Y' X|_F^2 / (|X' X|_F |Y' Y|_F) with centred columns, in [0, 1]; see
`measure.similarity`. Two layers are compared row by row, so both need the same number of rows: a
layer read by tokens and one read by samples have none in common, and their entry is NaN. With few
rows against many features even unrelated layers are alike, near p / (n + p): compare entries of
one matrix with care where widths differ. It is a property of the probe, not of the training data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.graph.layers import Layer
from ndt_offline.measure.similarity import Array, Representation, cheaper_form, hold, similarities
from ndt_offline.replay.block import only
from ndt_offline.replay.forward import Replayer
from ndt_offline.replay.setup import Parameters, Setup, prepare
from ndt_offline.run.reader import Decoder, Run


@dataclass(frozen=True)
class Likeness:
    """`matrices` {(step, other step): CKA [layer, layer]}, rows at the first, columns at the other.

    There is one of each step with itself, then one of each two steps that were named in turn. NaN
    where two layers have other numbers of rows, or one is constant or not finite: `notes` say so.
    """

    layers: tuple[Layer, ...]
    steps: tuple[int, ...]
    matrices: Mapping[tuple[int, int], Array]
    notes: tuple[str, ...]


def likeness(run: Run, steps: Sequence[int], parameters: Parameters) -> Likeness:
    """Replay these steps alone, and compare all activation layers that `parameters` choose.

    Memory: the representations of two steps, per layer 8 n p or 4 n^2 bytes. Raises UsageError
    where no layer is left, and NdtError where a step cannot be replayed.
    """
    setup = prepare(run, parameters)
    if not setup.activations:
        said = [*(p.what for p in setup.problems), *setup.notes, "no activation layer was chosen"]
        raise UsageError(f"nothing to compare: {said[0]}", path=run.path)
    steps = tuple(dict.fromkeys(steps))
    decoder = Decoder(run.path, run.entries)
    replayer = Replayer(run, only(setup, frozenset({"activations"})), frozenset())
    matrices: dict[tuple[int, int], Array] = {}
    notes, before = list(_apart(setup.activations)), None
    for step in steps:
        held = _held(replayer, decoder, run, step, setup)
        matrices[step, step] = similarities(held, held)
        if before is not None:
            matrices[before[0], step] = similarities(before[1], held)
        flat = [a.name for a, r in zip(setup.activations, held, strict=True) if r.constant]
        notes += [f"step {step}: {name} is constant over the probe, or not finite" for name in flat]
        before = step, held
    order = sorted(matrices, key=lambda pair: pair[0] != pair[1])
    notes += [f"{name}: {reason}" for name, reason in setup.skipped]
    return Likeness(
        setup.activations, steps, {pair: matrices[pair] for pair in order}, tuple(notes)
    )


def _held(
    replayer: Replayer, decoder: Decoder, run: Run, step: int, setup: Setup
) -> list[Representation]:
    """Every layer's representation at one step, in the form that all layers of its rows have."""
    forms, held = _forms(setup.activations), dict[int, Representation]()

    def watch(index: int, matrix: Any) -> None:
        held[index] = hold(matrix, forms[len(matrix)])

    row = replayer.measure(decoder.read(run.entry(step)), watch)
    missing = [a.name for i, a in enumerate(setup.activations) if i not in held]
    if row.problem or missing:
        what = row.problem or f"layer {missing[0]} has another shape than the graph says"
        raise NdtError(what, path=run.path, step=step)
    return [held[index] for index in range(len(setup.activations))]


def _forms(layers: Sequence[Layer]) -> dict[int, str]:
    """{rows: form}, as is cheaper for layers of the mean width."""
    found = {}
    for rows in {layer.rows for layer in layers}:
        widths = [layer.columns for layer in layers if layer.rows == rows]
        found[rows] = cheaper_form(rows, max(1, int(np.mean(widths))), len(widths))
    return found


def _apart(layers: Sequence[Layer]) -> list[str]:
    """Which layers cannot be compared, by name, where their rows differ."""
    groups: dict[int, list[str]] = {}
    for layer in layers:
        groups.setdefault(layer.rows, []).append(layer.name)
    if len(groups) == 1:
        return []
    parts = [f"{', '.join(names)} ({rows} rows)" for rows, names in groups.items()]
    return ["not compared, other rows: " + " | ".join(parts)]
