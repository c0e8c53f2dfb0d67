"""One row per series, from the answers in a store: what the table, `--json` and rules look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ndt_offline.relate.signatures import persistence
from ndt_offline.report.tidy import plain, tidy_table
from ndt_offline.store.results import PROBE, SPACES, Results
from ndt_offline.store.tables import read_table

Row = dict[str, Any]
BROKEN = "not tested: the detector's arithmetic failed on this series"


def summary_rows(results: Results) -> list[Row]:
    """A dictionary per series, in the order of the store.

    space, layer, metric        which series
    rows, columns               of the measured matrix
    first, last                 the first and last value; no last where the layer is not a number
                                at the last usable step
    lowest, highest             over all usable steps; lowest_at, highest_at: the training step
    status                      of the detector: ok, low power, too short, constant, irregular
    transitions                 found at the threshold
    expected, _low, _high       by the same detector on noise matched to the series, and the
                                nominal 90 % range of that count
    judged                      whether the verdict on the count includes it: neither too short, too
                                smooth nor too coarse to be judged; None where nobody asked
    phases                      the phases in words; None where they were not fitted
    trend                       in words; None where unknown
    words_<target>              the coupling in words, by the rules in `relate.words`
    rho_, p_, q_, clock_<target>  rho of the levels; p and q beyond the common clock; rho of
                                training time itself with the target
    """
    group = results.answer("transitions")
    if group is None:
        return []
    series = read_table(group, "series")
    infos = {(s, x.name): x for s in (*SPACES, "model") for x in results.layers(s)}
    phases = _phase_words(results)
    couplings = _coupling_rows(results)
    broken = set(_broken_layers(results))
    rows = []
    for index in range(len(series["layer"])):
        name = tuple(str(series[key][index]) for key in ("space", "layer", "metric"))
        info = infos[name[0], name[1]]
        row: Row = dict(zip(("space", "layer", "metric"), name, strict=True))
        row |= {"rows": info.rows, "columns": info.columns}
        row |= _extent(results.steps, results.series(*name))
        row["last"] = None if name[:2] in broken else row["last"]
        row["status"] = _status(int(series["status"][index]))
        row["transitions"] = int(series["observed"][index])
        for key, column in zip(_EXPECTED, ("matched", "matched_low", "matched_high"), strict=True):
            row[key] = plain(float(series[column][index]))
        row["judged"] = bool(series["judged"][index]) if "judged" in series else None
        row["phases"] = phases.get(name)
        rows.append(row | couplings.get(name, {"trend": None}))
    return rows


_EXTENT = ("first", "last", "lowest", "highest", "lowest_at", "highest_at")
_EXPECTED = ("expected", "expected_low", "expected_high")


def _extent(steps: np.ndarray, values: np.ndarray) -> Row:
    known = np.isfinite(values)
    finite, at = values[known], steps[known]
    if not len(finite):
        return dict.fromkeys(_EXTENT)
    low, high = int(finite.argmin()), int(finite.argmax())
    ends = (float(finite[i]) for i in (0, -1, low, high))
    return dict(zip(_EXTENT, (*ends, int(at[low]), int(at[high])), strict=True))


def _broken_layers(results: Results) -> Iterator[tuple[str, str]]:
    """(space, layer) of what is not a number at the last usable step."""
    usable = np.flatnonzero(results.usable)
    for space in SPACES if len(usable) else ():
        at_last = results.broken(space)[usable[-1]]
        yield from ((space, results.layers(space)[i].name) for i in np.flatnonzero(at_last))


def last_signal(results: Results, name: str) -> float:
    """A signal at the last usable step; of what the training told, the last that it told.

    NaN where the probe gave no number then, or the training has told none for long.
    """
    values = results.signal(name)[results.usable]
    known = np.flatnonzero(np.isfinite(values))
    patience = 1 if name.startswith(PROBE) else persistence(len(values))
    ended = not len(known) or len(values) - known[-1] > patience
    return math.nan if ended else float(values[known[-1]])


def _status(code: int) -> str:
    from ndt_offline.detect.pieces import STATUS

    return STATUS[code] if code < len(STATUS) else BROKEN


def _phase_words(results: Results) -> dict[tuple[str, ...], str]:
    from ndt_offline.relate.phase import Phase, PhaseFit
    from ndt_offline.relate.words import phase_words

    fits, phases = tidy_table(results, "fits"), tidy_table(results, "phases")
    found: dict[tuple[str, ...], list[Phase]] = {}
    for name, row in _named_rows(phases):
        fields = {key: row[key] for key in Phase.__dataclass_fields__}
        found.setdefault(name, []).append(Phase(**fields))
    return {
        name: phase_words(
            PhaseFit(
                0,
                row["status"],
                tuple(found.get(name, ())),
                persistence=_number(row["persistence"]),
                evidence=_number(row.get("evidence")),
            )
        )
        for name, row in _named_rows(fits)
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _coupling_rows(results: Results) -> dict[tuple[str, ...], Row]:
    from ndt_offline.relate.couplings import Coupling
    from ndt_offline.relate.words import coupling_words, trend_words

    rows: dict[tuple[str, ...], Row] = {}
    for name, pair in _named_rows(tidy_table(results, "couplings")):
        known = {key: pair[key] for key in Coupling.__dataclass_fields__ if key in pair}
        coupling = Coupling(**(known | {"series": 0, "target": 0}))
        target = pair["target"]
        row = rows.setdefault(name, {"trend": trend_words(coupling.rho_series_time) or None})
        row[f"words_{target}"] = coupling_words(coupling, target)
        for key, column in (("rho", "rho"), ("p", "p"), ("q", "q"), ("clock", "rho_time")):
            row[f"{key}_{target}"] = plain(pair[column])
    return rows


def _named_rows(table: dict[str, np.ndarray]) -> Iterator[tuple[tuple[str, ...], Row]]:
    columns = [column.tolist() for column in table.values()]
    for values in zip(*columns, strict=True):
        row = dict(zip(table, values, strict=True))
        yield (row["space"], row["layer"], row["metric"]), row
