"""Tidy tables of a store: one row per observation, names instead of numbers, columns explained.

What exports write, `--json` prints and the report shows comes from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ndt_offline.errors import UsageError, nearest
from ndt_offline.report.columns import COLUMNS, SERIES_KEYS
from ndt_offline.store.results import Results
from ndt_offline.store.tables import read_table

Table = dict[str, np.ndarray]


def tidy_table(results: Results, name: str) -> Table:
    """One table of `COLUMNS`, {column: array [row]}; no rows where the store has no such answer."""
    if name not in COLUMNS:
        raise UsageError(f"table {name!r} is not known", remedy=nearest(name, COLUMNS))
    known = _BUILDERS[name](results)
    # A column that a later detector adds comes last, unexplained but not lost.
    order = [c for c in COLUMNS[name] if c in known] + [c for c in known if c not in COLUMNS[name]]
    return {column: known[column] for column in order}


def names_table(results: Results) -> Table:
    """space, layer, metric of every series of the newest answers, by number."""
    group = results.answer("couplings")
    if group is None:
        return {name: np.zeros(0, object) for name in SERIES_KEYS}
    return read_table(group, "series")


def _named(results: Results, stage: str, table: str) -> Table:
    """A stage's table with the number of the series replaced by its three names."""
    group = results.answer(stage)
    if group is None:
        return dict.fromkeys(SERIES_KEYS, np.zeros(0, object))
    rows, names = read_table(group, table), names_table(results)
    at = rows.pop("series").astype(np.int64)
    rows.pop("index", None)
    return {key: column[at] for key, column in names.items()} | rows


def _series(results: Results) -> Table:
    names, steps = names_table(results), results.steps
    count = len(names["layer"])
    values = [results.series(*(str(names[k][i]) for k in SERIES_KEYS)) for i in range(count)]
    table: Table = {"step": np.tile(steps, count)}
    table |= {key: np.repeat(column, len(steps)) for key, column in names.items()}
    return table | {"value": np.concatenate([np.zeros(0), *values])}


def _signals(results: Results) -> Table:
    values = {name: results.signal(name) for name in results.signal_names}
    values = {name: column for name, column in values.items() if np.isfinite(column).any()}
    return {
        "step": np.tile(results.steps, len(values)),
        "signal": np.repeat(np.array(list(values), object), len(results.steps)),
        "value": np.concatenate([np.zeros(0), *values.values()]),
    }


def _events(results: Results) -> Table:
    group = results.answer("events")
    if group is None:
        return {}
    events = read_table(group, "events")
    members: list[dict[str, None]] = [{} for _ in events["step"]]
    for number, name in event_members(results):
        members[number]["/".join(name)] = None
    said = np.array([", ".join(names) for names in members], object)
    return {"event": np.arange(len(members)), **events, "members": said}


def event_members(results: Results) -> list[tuple[int, tuple[str, str, str]]]:
    """(number of the event, (space, layer, metric)) of every transition in an event."""
    group = results.answer("events")
    if group is None:
        return []
    inside, names = read_table(group, "members"), names_table(results)
    full = list(zip(*(names[key].tolist() for key in SERIES_KEYS), strict=True))
    pairs = zip(inside["event"].tolist(), inside["series"].tolist(), strict=True)
    return [(event, full[series]) for event, series in pairs]


def _couplings(results: Results) -> Table:
    from ndt_offline.relate import STATUS

    group = results.answer("couplings")
    columns = read_table(group, "couplings") if group is not None else {}
    if group is None or not columns:
        return {key: np.zeros(0, object) for key in (*SERIES_KEYS, "target")}
    names, targets = read_table(group, "series"), read_table(group, "targets")["target"]
    k, t = columns["rho"].shape
    table: Table = {key: np.repeat(column, t) for key, column in names.items()}
    table["target"] = np.tile(targets, k)
    table |= {name: column.ravel() for name, column in columns.items()}
    table["status"] = np.array([STATUS[code] for code in table["status"]], object)
    return table


def _whole(results: Results, stage: str) -> Table:
    group = results.answer(stage)
    return read_table(group, stage) if group is not None else {}


_BUILDERS: dict[str, Callable[[Results], Table]] = {
    "series": _series,
    "signals": _signals,
    "transitions": lambda results: _named(results, "transitions", "transitions"),
    "events": _events,
    "phases": lambda results: _named(results, "phases", "phases"),
    "fits": lambda results: _named(results, "phases", "fits"),
    "couplings": _couplings,
    "sweep": lambda results: _whole(results, "sweep"),
    "rates": lambda results: _whole(results, "rates"),
}


def rows_of(table: Table) -> list[dict[str, Any]]:
    """A table as dictionaries of plain values; what is not finite is None."""
    columns = {name: _plain_column(column) for name, column in table.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain_column(column: np.ndarray) -> list[Any]:
    if column.dtype.kind != "f":
        return [plain(value) for value in column.tolist()]
    values = column.astype(object)
    values[~np.isfinite(column)] = None
    return list(values.tolist())


def plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
