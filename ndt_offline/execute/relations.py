"""Stages about whole series: couplings with targets, and phases."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import zarr

from ndt_offline.execute.forks import in_forks
from ndt_offline.execute.question import Question
from ndt_offline.execute.sources import source_key
from ndt_offline.store.results import Results, SeriesId, names_of
from ndt_offline.store.tables import key_of, stage_of

LOADS = ("scipy.special",)  # what its pieces import
AT_ONCE = 24  # series whose couplings are computed together: they share the targets' part of it
VALUES = 2**20  # of those series together at most
TOGETHER = 4  # series whose phases are fitted together: they share the draws
PHASED = 400  # series whose phases are fitted unasked: about 40 ms each, with 99 draws


def put_couplings(
    results: Results,
    question: Question,
    ids: tuple[SeriesId, ...],
    values: np.ndarray,
    workers: int | None = None,
) -> zarr.Group:
    """Every series against every target that was recorded."""
    from ndt_offline.relate.couplings import Coupling

    targets = {name: results.signal(name) for name in question.targets}
    targets = {name: target for name, target in targets.items() if np.isfinite(target).any()}
    digest = key_of(*(t.tobytes() for t in targets.values()))
    key = key_of(
        source_key("relate"), results.content_key(question.measures), question.metrics,
        question.smooth,
        list(targets), digest, tuple(Coupling.__dataclass_fields__),
    )  # fmt: skip

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        columns: dict[str, np.ndarray] = {}
        if targets and len(ids):
            stacked = np.array(list(targets.values()))
            columns = _couplings(results, question, values, stacked, workers)
        names = {"target": np.array(list(targets), dtype=object)}
        tables = {
            "couplings": (("series", "target"), columns),
            "series": (("series",), names_of(ids)),
            "targets": (("target",), names),
        }
        return tables, {"smooth": question.smooth}

    return stage_of(results.root["derived"], "couplings", key, make)


def _couplings(
    results: Results,
    question: Question,
    values: np.ndarray,
    targets: np.ndarray,
    workers: int | None,
) -> dict[str, np.ndarray]:
    """Couplings a few series at a time; q is over all of them."""
    from ndt_offline.relate.combine import benjamini_hochberg
    from ndt_offline.relate.couplings import couplings_table

    # Of a length that depends on the series alone: what is computed together may be rounded so.
    few = max(1, min(AT_ONCE, VALUES // max(1, values.shape[1])))

    def some(number: int) -> dict[str, np.ndarray]:
        part = values[number * few : (number + 1) * few]
        return dict(couplings_table(part, targets, results.steps, smooth=question.smooth))

    tables = in_forks(some, -(-len(values) // few), workers, LOADS)
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return columns | {"q": benjamini_hochberg(columns["p"])}


def put_phases(
    results: Results,
    question: Question,
    ids: tuple[SeriesId, ...],
    values: np.ndarray,
    workers: int | None = None,
) -> zarr.Group:
    """Phases of the chosen metrics' series, one row per phase and one per series."""
    from ndt_offline.relate import fit_phases
    from ndt_offline.relate.phase import SCALARS, PhaseFit

    metrics = phased_metrics(question, ids)
    key = key_of(
        source_key("relate"), results.content_key(question.measures), question.metrics, metrics,
        question.phase_draws, question.seed,
    )  # fmt: skip

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        where = [i for i, name in enumerate(ids) if name.metric in metrics]
        draws, seed = question.phase_draws, question.seed

        def some(number: int) -> list[PhaseFit]:
            chosen = values[where[number * TOGETHER : (number + 1) * TOGETHER]]
            return fit_phases(chosen, results.steps, draws=draws, seed=seed)

        parts = in_forks(some, -(-len(where) // TOGETHER), workers, LOADS)
        fits = [fit for part in parts for fit in part]
        series: dict[str, Any] = {"series": np.array(where, np.int64)}
        series["status"] = np.array([fit.status for fit in fits], object)
        for name in SCALARS:
            series[name] = np.array([getattr(fit, name) for fit in fits], np.float64)
        return {
            "phases": (("phase",), _phase_columns(fits, where)),
            "fits": (("fit",), series),
        }, {"metrics": metrics, "draws": draws, "seed": seed}

    return stage_of(results.root["derived"], "phases", key, make)


def phased_metrics(question: Question, ids: tuple[SeriesId, ...]) -> tuple[str, ...]:
    """The metrics asked for, or the first ones until `PHASED` series are reached."""
    names = Counter(name.metric for name in ids)
    counts = {name: names[name] for name in (*question.metrics, *names)}
    if question.phases is not None:
        return tuple(name for name in counts if name in question.phases)
    room = np.cumsum(list(counts.values())) <= PHASED
    return tuple(counts)[: max(1, int(room.sum()))]


def _phase_columns(fits: list[Any], where: list[int]) -> dict[str, np.ndarray]:
    rows = [(at, n, fit, phase) for at, fit in zip(where, fits, strict=True)
            for n, phase in enumerate(fit.phases)]  # fmt: skip
    columns: dict[str, np.ndarray] = {
        "series": np.array([at for at, *_ in rows], np.int64),
        "number": np.array([n for _, n, *_ in rows], np.int64),
        "label": np.array([phase.label for *_, phase in rows], object),
        "value_start": np.array([fit.values[n] for _, n, fit, _ in rows], np.float64),
        "value_end": np.array([fit.values[n + 1] for _, n, fit, _ in rows], np.float64),
    }
    for name in ("start", "start_low", "start_high", "end", "change", "low", "high"):
        columns[name] = np.array([getattr(phase, name) for *_, phase in rows], np.float64)
    return columns
