"""Baselines: healthy runs kept by name, per architecture, and where another run leaves their bands.

A baseline is a folder, NAME/<architecture>.npz: series of every run at the steps that all of them
have, with the names of series and runs. It lies in the user's own folder, or in `NDT_BASELINES`.
Values are read without pickle; what is not ours is refused.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.relate.bands import FEWEST, Band, fit_band, outside
from ndt_offline.store.results import Results
from ndt_offline.store.tables import key_of
from ndt_offline.store.whole_file import replacing

METRICS = ("stable_rank", "effective_rank")
SIGNALS = ("probe_loss", "grad_norm")
FORMAT = "ndt-offline-baseline-1"
FEWEST_STEPS = 10
ALARM = 0.1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Row = dict[str, Any]


@dataclass(frozen=True)
class Baseline:
    """Healthy runs of one architecture: values [run, series, step]."""

    name: str
    runs: tuple[str, ...]
    series: tuple[str, ...]
    steps: np.ndarray
    values: np.ndarray

    def band(self, alarm: float = ALARM) -> Band:
        """Raises UsageError for fewer than three runs."""
        if len(self.runs) < FEWEST:
            raise UsageError(
                f"baseline {self.name!r} has {len(self.runs)} runs, a band needs {FEWEST}",
                remedy=f"ndt-offline baseline add {self.name} RUN...",
            )
        return fit_band(self.values, alarm)


@dataclass(frozen=True)
class Comparison:
    """A run beside a baseline; a row per series that leaves its band, the first one first."""

    baseline: str
    runs: int
    rate: float
    critical: float
    series: int
    steps: int
    departures: list[Row]


def home() -> Path:
    """Where baselines are kept: `NDT_BASELINES`, or the user's folder for application data."""
    import click

    given = os.environ.get("NDT_BASELINES")
    return Path(given) if given else Path(click.get_app_dir("ndt-offline")) / "baselines"


def architecture(results: Results) -> str:
    """Identity of what was measured: layers of both spaces with their shapes."""
    layers = [(s.name, x.name, x.rows, x.columns) for s in results.spaces for x in s.layers]
    return key_of(layers)


def add(name: str, runs: Sequence[Results]) -> list[Baseline]:
    """Add analysed runs to a baseline; the baselines that changed, one per architecture."""
    groups: dict[str, list[Results]] = {}
    for results in runs:
        groups.setdefault(architecture(results), []).append(results)
    changed = []
    for key, group in groups.items():
        path = _folder(name) / f"{key}.npz"
        kept = _read(name, path) if path.is_file() else None
        for results in group:
            kept = _joined(name, kept, results)
        assert kept is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, kept)
        changed.append(kept)
    return changed


def names() -> list[str]:
    """Baselines that are kept."""
    return sorted(p.name for p in home().iterdir() if p.is_dir()) if home().is_dir() else []


def read_all(name: str) -> list[Baseline]:
    """Every architecture of a baseline. Raises UsageError where there is none of that name."""
    paths = sorted(_folder(name).glob("*.npz"))
    if not paths:
        kept = ", ".join(names()) or "none is kept"
        remedy = f"ndt-offline baseline add {name} RUN... (kept: {kept})"
        raise UsageError(f"there is no baseline {name!r}", remedy=remedy)
    return [_read(name, path) for path in paths]


def remove(name: str) -> int:
    """Delete a baseline; how many runs it had."""
    runs = sum(len(baseline.runs) for baseline in read_all(name))
    for path in _folder(name).glob("*.npz"):
        path.unlink()
    _folder(name).rmdir()
    return runs


def find(name: str, results: Results) -> Baseline:
    """The baseline for this run's architecture."""
    path = _folder(name) / f"{architecture(results)}.npz"
    if not path.is_file():
        read_all(name)
        raise UsageError(
            f"baseline {name!r} has no run with these layers",
            path=results.path,
            remedy=f"ndt-offline baseline add {name} RUN... with runs of this architecture",
        )
    return _read(name, path)


def compare(baseline: Baseline, results: Results, alarm: float = ALARM) -> Comparison:
    """Where a run leaves the band, over the steps that both have."""
    band = baseline.band(alarm)
    common, ours, theirs = np.intersect1d(results.steps, baseline.steps, return_indices=True)
    usable = results.usable[ours]
    common, ours, theirs = common[usable], ours[usable], theirs[usable]
    values = _taken(baseline.name, results, baseline.series)[:, ours]
    whole = np.full((len(baseline.series), len(baseline.steps)), np.nan)
    whole[:, theirs] = values
    found = outside(band, whole)[:, theirs]
    rows: list[Row] = []
    for at, series in enumerate(baseline.series):
        away = np.flatnonzero(np.abs(found[at]) > band.critical)
        if len(away):
            first = away[0]
            low, high = (edge[at, theirs[first]] for edge in (band.low, band.high))
            rows.append(
                {
                    "series": series, "step": int(common[first]), "value": float(values[at, first]),
                    "low": float(low), "high": float(high),
                    "deviation": float(found[at, first]),
                    "worst": float(np.abs(found[at]).max()), "share": len(away) / len(common),
                }
            )  # fmt: skip
    rows.sort(key=lambda row: (row["step"], -row["worst"]))
    counts = (len(baseline.series), len(common))
    return Comparison(baseline.name, band.runs, band.rate, band.critical, *counts, rows)


def _joined(name: str, kept: Baseline | None, results: Results) -> Baseline:
    """A baseline with one more run, at the steps that all have; a run of that path is replaced."""
    steps = results.steps[results.usable]
    series = kept.series if kept else tuple(series_of(results))
    values = _taken(name, results, series)[:, results.usable]
    here = str(results.path.resolve())
    if kept is None:
        return Baseline(name, (here,), series, steps, values[None])
    common, old, new = np.intersect1d(kept.steps, steps, return_indices=True)
    if len(common) < FEWEST_STEPS:
        raise UsageError(
            f"has {len(common)} steps in common with baseline {name!r}, {FEWEST_STEPS} are needed",
            path=results.path,
            remedy="record runs of one baseline at the same steps",
        )
    others = [i for i, run in enumerate(kept.runs) if run != here]
    runs = (*(kept.runs[i] for i in others), here)
    stacked = np.concatenate([kept.values[others][..., old], values[None][..., new]])
    return Baseline(name, runs, series, common, stacked)


def _taken(name: str, results: Results, series: Sequence[str]) -> np.ndarray:
    """The series of a run that a baseline has: [series, step]."""
    derived = set(series_of(results))
    lacking = {s.rpartition("/")[2] for s in series if "/" in s and s not in derived}
    if lacking:
        raise UsageError(
            f"baseline {name!r} needs {', '.join(sorted(lacking))}, which was not asked of the run",
            path=results.path,
            remedy="ndt-analyze RUN " + " ".join(f"--metrics {metric}" for metric in METRICS),
        )
    return np.array([values_of(results, one) for one in series])


def series_of(results: Results) -> list[str]:
    """Names of the series that a baseline keeps: space/layer/metric, and signals."""
    found = [f"{space.name}/{layer.name}/{metric}" for space in results.spaces
             for layer in space.layers for metric in METRICS
             if metric in results.metric_names(space.name)]  # fmt: skip
    return found + [s for s in SIGNALS if np.isfinite(results.signal(s)).any()]


def values_of(results: Results, series: str) -> np.ndarray:
    """A series by such a name, or a signal: [step]."""
    if "/" not in series:
        return results.signal(series)
    space, _, rest = series.partition("/")
    layer, _, metric = rest.rpartition("/")
    return results.series(space, layer, metric)


def _folder(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a baseline", remedy="letters, digits, . _ -")
    return home() / name


def _write(path: Path, baseline: Baseline) -> None:
    about = {"format": FORMAT, "runs": baseline.runs, "series": baseline.series}
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file, about=np.array(json.dumps(about)), steps=baseline.steps, values=baseline.values
        )


def _read(name: str, path: Path) -> Baseline:
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            steps, values = file["steps"], file["values"]
        runs, series = tuple(map(str, about["runs"])), tuple(map(str, about["series"]))
        if about["format"] != FORMAT or values.shape != (len(runs), len(series), len(steps)):
            raise ValueError("its parts do not fit together")
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DamagedError(
            f"is no baseline ({error})",
            path=path,
            remedy=f"delete it; ndt-offline baseline add {name}",
        ) from None
    return Baseline(name, runs, series, steps, values)
