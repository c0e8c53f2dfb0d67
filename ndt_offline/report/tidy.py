"""Tidy tables of a store: one row per observation, names instead of numbers, columns explained.

What exports write, `--json` prints and the report shows comes from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ndt_offline.errors import UsageError, nearest
from ndt_offline.store.results import Results
from ndt_offline.store.tables import read_table

Table = dict[str, np.ndarray]

# Every column of every table: what it says, and its unit where it has one.
SERIES_KEYS = {
    "space": "activations or weights",
    "layer": "module path, or name of the parameter",
    "metric": "dimensionality metric",
}
COLUMNS: dict[str, dict[str, str]] = {
    "series": {
        "step": "training step (updates done)",
        **SERIES_KEYS,
        "value": "the metric; nan where it could not be computed",
    },
    "signals": {
        "step": "training step",
        "signal": "loss, grad_norm, ... of the training batch; probe_loss, probe_accuracy",
        "value": "as recorded, or measured on the probe",
    },
    "transitions": {
        **SERIES_KEYS,
        "step": "first training step of the new level",
        "low": "first training step that may hold the transition (nominal 90 %)",
        "high": "last training step that may hold it",
        "size": "signed size, in units of the metric; sizes of detections are inflated",
        "size_unbiased": "the size allowing for selection; 0 where it barely passed",
        "size_low": "nominal 90 % interval of the size, given that it was detected",
        "size_high": "nominal 90 % interval of the size, given that it was detected",
        "sigma": "size over the SD within 50 points",
        "sigma_low": "interval of sigma",
        "sigma_high": "interval of sigma",
        "T": "size over its standard error",
        "Tt": "the same under Student-t noise",
        "nu": "degrees of freedom of the noise; inf: Gaussian",
        "p": "chance of such a T anywhere in a Gaussian series of this length",
        "width": "half width of the filter, in points",
        "retained": "share of the size left after 20 points: 1 a shift, 0 a shock",
        "drops_out": "threshold at which it is no longer reported",
    },
    "events": {
        "event": "number of the event",
        "step": "training step of its strongest transition",
        "p": "chance that noise alone gives such an event anywhere in the run",
        "series": "how many series take part",
        "members": "space/layer/metric of each, strongest first",
        "marks": "what else happened there: restart, learning rate, epoch",
    },
    "phases": {
        **SERIES_KEYS,
        "number": "0, 1, 2 in order",
        "label": "falls, rises, stable; unclear: noise leaves room for a quarter of the range",
        "start": "training step at which the phase begins",
        "start_low": "90 % interval of start",
        "start_high": "90 % interval of start",
        "end": "training step at which it ends",
        "value_start": "fitted value at start",
        "value_end": "fitted value at end",
        "change": "value_end - value_start",
        "low": "90 % interval of change",
        "high": "90 % interval of change",
    },
    "fits": {
        **SERIES_KEYS,
        "status": "ok, gaps filled, or why no phases were fitted",
        "p_two": "p of one phase being enough",
        "p_three": "p of two phases being enough",
        "early": "share of the ups and downs in the first quarter of the steps",
        "early_low": "90 % interval of early",
        "early_high": "90 % interval of early",
        "noise": "SD around the fitted curve",
        "persistence": "correlation of that noise from one step to the next",
    },
    "couplings": {
        **SERIES_KEYS,
        "target": "what the series is compared with",
        "status": "ok, or what limits the pair",
        "n": "steps at which both are known",
        "rho": "Spearman's rho of the levels; read rho_time beside it",
        "low": "95 % interval of rho, by effective n",
        "high": "95 % interval of rho",
        "rho_time": "rho of training time itself with the target",
        "rho_series_time": "rho of training time with the series",
        "partial": "rho given time",
        "p": "of coupling beyond the common clock (Simes over the parts)",
        "q": "p after Benjamini-Hochberg over all pairs of the run",
        "p_shift": "part: truncated time shift",
        "rho_detrended": "rho of the detrended pair",
        "p_detrended": "part: detrended",
        "rho_differenced": "rho of the differenced pair",
        "p_differenced": "part: differenced",
        "rho_lag": "correlation of the detrended pair at that lag",
        "p_lag": "part: that lag, corrected for all lags within 50 samples",
        "lag": "training steps by which the series leads (negative: follows)",
        "lag_low": "interval of lag",
        "lag_high": "interval of lag",
        "n_effective": "what the n samples are worth",
        "ties": "share of tied samples",
        "rho_smooth": "rho after the centred mean asked for by --smooth",
        "rho_time_smooth": "rho_time after it",
        "partial_smooth": "partial after it",
    },
    "sweep": {
        "threshold": "of the detector",
        "observed": "transitions in all series of the run",
        "matched": "the same on noise matched to each series, mean per draw",
        "matched_low": "nominal 90 % range of one draw",
        "matched_high": "nominal 90 % range of one draw",
    },
    "rates": {
        "every": "training steps from one sample to the next",
        "points": "samples left of a series",
        "found": "transitions in all chosen series, mean over offsets",
        "spread": "SD over offsets",
        "matched": "the same on noise matched to each full series",
        "remark": "what so few points can tell",
    },
}


def tidy_tables(results: Results) -> dict[str, Table]:
    """Every table of `COLUMNS` that the store holds, as {column: array [row]}."""
    return {name: tidy_table(results, name) for name in COLUMNS}


def tidy_table(results: Results, name: str) -> Table:
    """One table of `COLUMNS`; without rows where the store has no such answer."""
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
