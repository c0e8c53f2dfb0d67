"""Baselines: the series of healthy runs of one architecture, kept under a name.

A file NAME.npz in $NDT_BASELINES (by default in the user's data folder): the common steps, the
names of the series and their values [run, series, step]. It holds numbers and names, no code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.relate.bands import FEWEST, Departure, departure
from ndt_offline.store.results import SPACES, Results
from ndt_offline.store.whole_file import replacing

SIGNALS = ("probe_loss", "loss", "grad_norm")
COUNTS = ("components_", "epsilon_rank")  # whole numbers: often no spread to measure by
SHORTEST = 10  # common steps
LISTED = 5  # series that are named in a sentence
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,59}", re.ASCII)


@dataclass(frozen=True)
class Baseline:
    """Values [run, series, step] at `steps`; `runs` says where each came from."""

    steps: np.ndarray
    series: tuple[str, ...]
    values: np.ndarray
    runs: tuple[str, ...]


def baseline_path(name: str) -> Path:
    """Where a baseline lies; UsageError for what is no name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:60]!r} is no name for a baseline", remedy="letters, digits, -_.")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    home = os.environ.get("NDT_BASELINES") or Path(data) / "ndt-offline/baselines"
    return Path(home) / f"{name}.npz"


def known_baselines() -> list[str]:
    return sorted(path.stem for path in baseline_path("x").parent.glob("*.npz"))


def load_baseline(name: str) -> Baseline:
    path = baseline_path(name)
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(bytes(file["about"]))
            found = Baseline(
                file["steps"], tuple(about["series"]), file["values"], tuple(about["runs"])
            )
    except FileNotFoundError:
        known = ", ".join(known_baselines()) or "none yet"
        remedy = f"ndt-offline baseline add {name} RUN... (known: {known})"
        raise UsageError(f"there is no baseline {name!r}", remedy=remedy) from None
    except Exception as error:  # numpy and zipfile raise almost anything
        raise DamagedError(f"is no baseline: {error!r}"[:300], path=path) from None
    shape = (len(found.runs), len(found.series), len(found.steps))
    if found.values.shape != shape or found.values.dtype != np.float64:
        raise DamagedError(f"values of shape {found.values.shape}, not {shape}", path=path)
    return found


def save_baseline(name: str, baseline: Baseline) -> Path:
    path = baseline_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"series": baseline.series, "runs": baseline.runs}).encode()
    said = np.frombuffer(about, np.uint8)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, about=said, steps=baseline.steps, values=baseline.values)
    return path


def baseline_of(results: Results, run: str) -> Baseline:
    """Every metric of every layer but counts, and the losses, of one analysed run."""
    names, columns = [], []
    for name, space in zip(SPACES, results.spaces, strict=True):
        for metric in results.metric_names(name):
            if metric.startswith(COUNTS):
                continue
            values = results.metric(name, metric)
            for index, layer in enumerate(space.layers):
                shape = f"[{layer.rows} x {layer.columns}]"
                names.append(f"{name} {layer.name} {shape} {metric}")
                columns.append(values[:, index])
    for signal in SIGNALS:
        names.append(signal)
        columns.append(results.signal(signal))
    return Baseline(results.steps, tuple(names), np.array([columns], np.float64), (run,))


def join(parts: Sequence[Baseline]) -> Baseline:
    """Several as one, at the steps they share; UsageError where their series differ."""
    steps = parts[0].steps
    for part in parts[1:]:
        differ = sorted(set(part.series) ^ set(parts[0].series))
        if differ:
            raise UsageError(
                f"{part.runs[0]} has other series than {parts[0].runs[0]}: {differ[0]}",
                remedy="one baseline per architecture, its runs analysed with the same --layers",
            )
        steps = np.intersect1d(steps, part.steps)
    if len(steps) < SHORTEST:
        raise UsageError(f"the runs share {len(steps)} steps; a band has at least {SHORTEST}")
    order = [[p.series.index(name) for name in parts[0].series] for p in parts]
    values = [
        part.values[:, rows][:, :, np.searchsorted(part.steps, steps)]
        for part, rows in zip(parts, order, strict=True)
    ]
    runs = tuple(run for part in parts for run in part.runs)
    return Baseline(steps, parts[0].series, np.concatenate(values), runs)


def compare(name: str, results: Results) -> tuple[list[str], bool]:
    """Sentences on how a run stands to a baseline, and whether it left its band."""
    known = load_baseline(name)
    both = join([known, baseline_of(results, "this run")])
    if len(known.runs) < FEWEST:
        what = f"baseline {name} has {len(known.runs)} runs; at least {FEWEST} make a band"
        raise UsageError(what, remedy=f"ndt-offline baseline add {name} RUN...")
    found = departure(both.values[:-1], both.values[-1])
    return _sentences(name, both, found), found.left


def _sentences(name: str, both: Baseline, found: Departure) -> list[str]:
    count = len(both.runs) - 1
    rate = f"a healthy run does so at a rate of at most 1 in {count + 1}"
    if not found.left:
        inside = f"baseline {name}: within the band of {count} healthy runs at every one of"
        return [f"{inside} {len(both.steps)} common steps (p = {found.p:.2g})"]
    outside = found.outside
    rows = np.flatnonzero(outside.any(1))
    rows = rows[np.argsort(-found.deviation[rows].max(1), kind="stable")]
    first = int(both.steps[np.flatnonzero(outside.any(0))[0]])
    said = [
        f"baseline {name}: leaves the band of {count} healthy runs from step {first} on, in "
        f"{len(rows)} of {len(both.series)} series ({rate})"
    ]
    for row in rows[:LISTED].tolist():
        at = np.flatnonzero(outside[row])
        largest = found.deviation[row].max()
        size = "not finite" if np.isinf(largest) else f"up to {largest:.3g} deviations"
        start, share = int(both.steps[at[0]]), len(at) / len(both.steps)
        said.append(f"  {both.series[row]}: from step {start}, {share:.0%} of the steps, {size}")
    return said
