"""Signatures of failure in a finished analysis: every rule of `relate.signatures` looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndt_offline.relate import signatures as rules
from ndt_offline.relate.signatures import Onset, Series
from ndt_offline.store.results import SPACES, Results

Row = dict[str, Any]
DIMENSIONS = ("effective_rank", "participation_ratio", "stable_rank")  # the first that is derived
_WORDS = {
    "diverged": "not a number any more",
    "spike": "the loss jumps far above its noise",
    "plateau": "the loss hardly falls after the first quarter, and ends above half of its start",
    "vanishing": "the gradient stays under 1/1000 of its early size, and the loss is still high",
    "exploding": "the gradient is over 10 times the largest of the first quarter",
    "collapse": "under half of the lowest value of the first quarter, to the end",
    "dying": "a tenth more of the units are dead than ever in the first quarter, to the end",
    "overfitting": "the second probe's loss rises by over 10 % while the first probe's falls",
}


@dataclass(frozen=True)
class Signature:
    """A rule that was met: by which series, from which training step on, and why in words."""

    name: str
    where: str
    step: int
    words: str


def find_signatures(results: Results, rows: Sequence[Row]) -> list[Signature]:
    """Every rule that is met, in the order of the rules; by the series that the answers have."""
    found = []
    usable = results.usable
    for name, where, onset in _looked_at(results, rows, usable):
        if onset is not None:
            step = int(results.steps[usable][onset])
            found.append(Signature(name, where, step, _WORDS[name]))
    return sorted(found, key=lambda one: rules.SIGNATURES.index(one.name))


def signature_lines(found: Sequence[Signature], most: int = 12) -> Iterator[str]:
    """Sentences for the screen and the report."""
    for one in found[:most]:
        yield f"sign of failure, {one.name} ({one.where}) from step {one.step}: {one.words}"
    if len(found) > most:
        yield f"... and {len(found) - most} more signs of failure: --json lists all"


def _looked_at(
    results: Results, rows: Sequence[Row], usable: np.ndarray
) -> Iterator[tuple[str, str, Onset]]:
    """(rule, series, where it is met) of every rule that has its series."""
    loss, norm = (results.signal(name)[usable] for name in ("loss", "grad_norm"))
    probe = results.signal("probe_loss")[usable]
    for where, series in (("loss", loss), ("probe_loss", probe)):
        if np.isfinite(series).any():
            yield "diverged", where, rules.diverged(~np.isfinite(series))
    for space in SPACES:
        for layer, broken in zip(
            results.layers(space), results.broken(space)[usable].T, strict=True
        ):
            yield "diverged", f"{space}/{layer.name}", rules.diverged(broken)
    level = probe if np.isfinite(probe).any() else loss
    loss, norm = (_known(series) for series in (loss, norm))
    yield "spike", "loss", rules.spike(loss)
    yield "plateau", "loss", rules.plateau(_known(level))
    yield "vanishing", "grad_norm", rules.vanishing(norm, level)
    yield "exploding", "grad_norm", rules.exploding(norm)
    second = results.signal("probe_loss_val")[usable]
    yield "overfitting", "probes", rules.overfitting(probe, second)
    known = {row["metric"] for row in rows}
    dimension = next((name for name in DIMENSIONS if name in known), None)
    for row in rows:
        name = row["space"], row["layer"], row["metric"]
        if row["space"] == "activations" and row["metric"] == dimension:
            yield "collapse", "/".join(name), rules.collapse(_of(results, name, usable))
        if row["metric"] == "dead_share":
            yield "dying", "/".join(name), rules.dying(_of(results, name, usable))
        if row["metric"] == "probe_gradient":
            gradient = _of(results, name, usable)
            yield "vanishing", "/".join(name), rules.vanishing(gradient, level)
            yield "exploding", "/".join(name), rules.exploding(gradient)


def _of(results: Results, name: tuple[str, str, str], usable: np.ndarray) -> Series:
    values: Series = results.series(*name)[usable]
    return values


def _known(values: Series) -> Series:
    """The initial state has no batch, and so no loss: its place is taken by what follows."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return values
    filled = values.copy()
    filled[: known[0]] = values[known[0]]
    return filled
