"""What a user is told of measures: those left out, and rows or layers without a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from ndt_offline.execute.standing import computed, refused_measures
from ndt_offline.measure.plugin import HISTORY, Measure, missing
from ndt_offline.replay.gain import COMPILED
from ndt_offline.replay.ledger import NOTHING
from ndt_offline.run.attempt import Problem
from ndt_offline.store.results import Results

NAMED = 5  # layers in one sentence


def left_out(results: Results, asked: Mapping[str, Measure]) -> list[Problem]:
    """A problem for each measure that was asked for and refused."""
    return [
        Problem(f"measure {spec} was left out: {about['reason']}", str(results.path))
        for spec, about in refused_measures(results).items()
        if spec in asked
    ]


def rounding_note(results: Results, replayed: int) -> Iterator[str]:
    """That what was replayed now is rounded otherwise than the rest of its store."""
    if replayed and results.attrs.get(COMPILED) and find_spec("numba") is None:
        yield (
            f"{replayed} checkpoints are rounded otherwise than those before them: this store was "
            "begun with numba, which is not here (pip install numba)"
        )


def measure_notes(results: Results, asked: Mapping[str, Measure]) -> Iterator[str]:
    """Sentences about the layers and the rows that a measure has no number for."""
    there = computed(results, asked)
    for measure in asked.values():
        if measure.name not in there:
            continue
        layers = results.layers("activations") if measure.space == "activations" else ()
        short = [layer.name for layer in layers if missing(measure, layer.rows)]
        if short:
            names = ", ".join(short[:NAMED])
            yield f"{measure.name}: {len(short)} layers have under {measure.rows} rows ({names})"
        rows = results.unmeasured(measure.name)
        if rows and rows[0] == (int(results.steps[0]), NOTHING) and measure.needs & set(HISTORY):
            rows = rows[1:]  # nothing is before the first step, which is no news
        if rows:
            step, why = rows[0]
            yield f"{measure.name}: {len(rows)} steps without all numbers, first {step}: {why}"
