"""Which rows of a measure stand as they are. Loads no torch and reads no checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ndt_offline.measure.catalogue import MEASURES
from ndt_offline.measure.plugin import Measure
from ndt_offline.replay.history import lacking_mark, measure_key, measure_mark, rows_behind
from ndt_offline.replay.mark import SEGMENT, is_passing
from ndt_offline.run.reader import Run
from ndt_offline.storage.location import files_below
from ndt_offline.store.measures import GROUP, key_of_measure, measure_groups
from ndt_offline.store.results import Results
from ndt_offline.store.schema import open_root

CHUNKS = "chunks"  # attribute of an array: which of its chunks were written
_CHUNK = re.compile(r"\d+/\d+/0", re.ASCII)


def measure_keys(measures: Mapping[str, Measure], spaces: Mapping[str, str]) -> dict[str, str]:
    """{how it is named: identity}; spaces: their identities as the store keeps them."""
    return {spec: measure_key(spec, measure, spaces) for spec, measure in measures.items()}


def known_measures(store: Path) -> tuple[str, ...]:
    """Our own measures that a store holds: what is asked for where nothing is named.

    A user's own are never taken from a store: their names lead to code.
    """
    try:
        groups = dict(measure_groups(open_root(store)))
    except Exception:  # whatever is wrong with the store is told by whoever needs it
        return ()
    return tuple(name for name in MEASURES if name in groups and groups[name].attrs.get("key"))


def runnable(
    measures: Mapping[str, Measure], results: Results, spaces: Mapping[str, str]
) -> dict[str, Measure]:
    """Those that were not refused when they were asked for before: a reason to prepare a replay."""
    keys, refused = measure_keys(measures, spaces), refused_measures(results)
    return {s: m for s, m in measures.items() if refused.get(s, {}).get("key") != keys[s]}


def remember_refused(
    results: Results, asked: Mapping[str, Measure], reasons: Mapping[str, str]
) -> None:
    """Note what was refused, so that the same question is not a reason to replay."""
    keys = measure_keys(asked, results.attrs.get("spaces", {}))
    known = {s: about for s, about in refused_measures(results).items() if s not in asked}
    new = {spec: {"key": keys[spec], "reason": reason} for spec, reason in reasons.items()}
    if refused_measures(results) != known | new:
        results.say(refused=known | new)


def computed(results: Results, asked: Mapping[str, Measure]) -> tuple[str, ...]:
    """The names in the store of those asked for that are there."""
    keys = measure_keys(asked, results.attrs.get("spaces", {}))
    return tuple(
        m.name for s, m in asked.items() if key_of_measure(results.root, m.name) == keys[s]
    )


def refused_measures(results: Results) -> dict[str, dict[str, str]]:
    """{how it is named: {key, reason}} of what could not be computed."""
    found: dict[str, dict[str, str]] = results.attrs.get("refused", {})
    return found


def stands(
    run: Run, results: Results, measure: Measure, key: str, rows: int, length: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Whether each of the first rows is done: [rows]; and those marked so that must be redone."""
    done = np.zeros(rows, bool)
    if key_of_measure(results.root, measure.name) != key:
        return done, ()
    group = results.root[f"{GROUP}/{measure.name}"]
    marks, problems = np.asarray(group["mark"][:rows]), group["problem"][:rows]
    for row in np.flatnonzero(marks).tolist():
        done[row] = _is_mark(int(marks[row]), run, measure, key, row)
    passing = np.array([bool(p) and is_passing(str(p)) for p in problems], bool)
    again = done & (passing | _gone(results, measure.name, marks, problems, length))
    return done & ~again, tuple(np.flatnonzero(again).tolist())


def _is_mark(mark: int, run: Run, measure: Measure, key: str, row: int) -> bool:
    behind = list(rows_behind(measure, row).values())
    whole = measure_mark(key, run.entries[row], [run.entries[at] for at in behind])
    if mark == whole:
        return True
    rows = [at % len(run.entries) for at in (row, *behind)]  # the last is row -1
    return mark == lacking_mark(whole, (run.entries[max(0, r - SEGMENT) : r + 1] for r in rows))


def _gone(
    results: Results, name: str, marks: np.ndarray, problems: np.ndarray, length: int
) -> np.ndarray:
    """Rows with values whose chunk is not there: it would read as NaN, without an error."""
    held = (marks != 0) & (np.asarray(problems, object) == "")
    gone = np.zeros(len(marks), bool)
    stored = _chunks(results, name)
    known = set(results.root[f"{GROUP}/{name}/values"].attrs.get(CHUNKS, ()))
    there, lost = (
        {int(file.split("/")[0]) for file in files} for files in (stored, known - stored)
    )
    for start in range(0, len(marks), length):
        part, at = slice(start, start + length), start // length
        if held[part].any() and (at not in there or at in lost):
            gone[part] = held[part]
    return gone


def remember_layers(results: Results) -> None:
    """Which chunks of a measure there are, where its layers take several.

    Layers without a number have none: only what was there can be missed.
    """
    for name, group in results.measures.items():
        values, found = group["values"], sorted(_chunks(results, name))
        if values.chunks[1] < values.shape[1] and values.attrs.get(CHUNKS) != found:
            values.attrs[CHUNKS] = found


def _chunks(results: Results, name: str) -> set[str]:
    """The chunks of a measure's values that are on disk, as step/layer/quantity."""
    stored = files_below(results.path / GROUP / name / "values" / "c")
    return {file for file in stored if _CHUNK.fullmatch(file)}
