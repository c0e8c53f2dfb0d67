"""One row per series, from the answers in a store: what tables, `--json` and exports show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ndt_offline.store.results import Results
from ndt_offline.store.tables import read_table


def summary_rows(results: Results) -> list[dict[str, Any]]:
    """A dictionary per series, in the order of the store.

    space, layer, metric, rows, columns, first, last (value at the first and last usable step),
    transitions (found), expected (by the same detector on matched noise), and per target:
    rho_<target>, p_<target>, q_<target>, clock_<target> (rho of training time with the target).
    """
    answers = {stage: results.answer(stage) for stage in ("transitions", "couplings")}
    if answers["transitions"] is None or answers["couplings"] is None:
        return []
    series = read_table(answers["transitions"], "series")
    couplings = read_table(answers["couplings"], "couplings")
    targets = [str(t) for t in read_table(answers["couplings"], "targets")["target"]]
    infos = {(s.name, x.name): x for s in results.spaces for x in s.layers}
    rows = []
    for index in range(len(series["layer"])):
        space, layer, metric = (str(series[key][index]) for key in ("space", "layer", "metric"))
        info = infos[space, layer]
        first, last = _ends(results.series(space, layer, metric))
        row = {"space": space, "layer": layer, "metric": metric}
        row |= {"rows": info.rows, "columns": info.columns, "first": first, "last": last}
        row["transitions"] = int(series["observed"][index])
        row["expected"] = _number(series["matched"][index])
        for at, target in enumerate(targets):
            for name, column in (("rho", "rho"), ("p", "p"), ("q", "q"), ("clock", "rho_time")):
                row[f"{name}_{target}"] = _number(couplings[column][index, at])
        rows.append(row)
    return rows


def _ends(values: np.ndarray) -> tuple[float | None, float | None]:
    finite = values[np.isfinite(values)]
    return (float(finite[0]), float(finite[-1])) if len(finite) else (None, None)


def _number(value: Any) -> float | None:
    """JSON has no NaN: what could not be computed is null."""
    return None if math.isnan(value) else float(value)
