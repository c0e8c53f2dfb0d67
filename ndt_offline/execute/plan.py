"""What there is to do: which rows stand, which are new or superseded, and in which blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ndt_offline.errors import UsageError
from ndt_offline.execute.standing import CHUNKS, measure_keys, remember_layers, runnable, stands
from ndt_offline.measure.plugin import Measure
from ndt_offline.replay.mark import SEGMENT, Block, bad_mark, is_passing, row_mark
from ndt_offline.run.reader import Run
from ndt_offline.storage.location import files_below, is_remote
from ndt_offline.store.growth import LEFT, STEPPED, as_text, same_rows, stepped
from ndt_offline.store.measures import GROUP
from ndt_offline.store.results import SPACES, Results, damaged
from ndt_offline.store.schema import MARKER, OUTCOME, SCHEMA_VERSION, STATUS, block_length

ABOUT = {"key", "notes", "problems", "skipped"}  # of a setup, as the store remembers it

_CHUNK = re.compile(r"\d+/0", re.ASCII)


@dataclass(frozen=True)
class Plan:
    """Rows of the store for a run, and the blocks still to replay."""

    create: bool  # there is no store yet
    changed: bool  # the store holds another replay: other layers, shapes or probe
    grows: bool  # rows are to be added, superseded or dropped
    steps: np.ndarray
    unchanged: int  # rows at the front that stand where they are
    length: int  # rows per block
    blocks: tuple[Block, ...]
    spectra: int  # rows of these blocks that lack spectra, and not only a measure
    lost: tuple[int, ...] = ()  # rows marked as done whose values are gone, or to be tried again
    measures: Mapping[str, str] = field(default_factory=dict)  # identity of each, as it is named
    redone: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # the same of a measure

    @property
    def todo(self) -> int:
        return sum(len(block.todo) for block in self.blocks)

    @property
    def done(self) -> int:
        return len(self.steps) - self.todo

    @property
    def idle(self) -> bool:
        """The store is as it should be: nothing to prepare and nothing to replay."""
        return not (self.create or self.changed or self.grows or self.blocks)


def make_plan(
    run: Run,
    store: Path,
    key: int,
    spaces: Mapping[str, int] | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> Plan:
    """Compare a run with its store. Loads no torch and reads no checkpoint.

    spaces: `space_keys` of the replay, once it is prepared. The files of others say only then
    which layers they have, and a new one may have more of them than those before.
    measures: those asked for beside the spectra, as they are named.
    """
    steps = np.array(run.steps, np.int64)
    results = _existing(store)
    measures = {spec: m for spec, m in (measures or {}).items() if "probe" not in m.needs}
    if results is None:
        length = block_length(
            len(steps), max((entry.size or 0 for entry in run.entries), default=0)
        )
        blocks = _blocks(run, np.zeros(len(steps), bool), length, bool(measures))
        keys = measure_keys(measures, as_text(spaces or {}))
        return Plan(True, True, True, steps, 0, length, blocks, len(steps), measures=keys)
    changed = (results.attrs["setup"] or {}).get("key") != f"{key:016x}"
    changed |= spaces is not None and results.attrs.get("spaces") != as_text(spaces)
    unchanged = _unchanged(results, steps)
    grows = not same_rows(results.root, steps)
    done, there = np.zeros(len(steps), bool), np.ones(unchanged, bool)
    length = int(results.attrs["block"])
    if not changed:
        there = _there(results, unchanged, length) & ~_passing(results, unchanged)
        done[:unchanged] = _done(run, results, key, unchanged) & there
    lost = tuple(np.flatnonzero(~there).tolist())
    known = results.attrs.get("spaces", {}) if spaces is None else as_text(spaces)
    if spaces is None:  # those of a prepared replay have just been looked at: see `refusal`
        measures = runnable(measures, results, known)
    keys, redone = measure_keys(measures, known), {}
    bare = int((~done).sum())
    for spec, measure in measures.items():
        stand, again = stands(run, results, measure, keys[spec], unchanged, length)
        redone[spec] = again
        done[:unchanged] &= stand
    blocks = _blocks(run, done, length, bool(measures))
    return Plan(False, changed, grows, steps, unchanged, length, blocks, bare, lost, keys, redone)


def _existing(store: Path) -> Results | None:
    """The store, or None where there is none, or one that was never finished."""
    if not store.exists() or (store.is_dir() and all(_left(p) for p in store.iterdir())):
        return None
    foreign = UsageError("is not a store of ndt-offline", path=store, remedy="give another --out")
    if not (store / "zarr.json").is_file():
        raise foreign
    results = Results(store)
    version = results.attrs.get(MARKER)
    if type(version) is not int:
        raise foreign
    if version > SCHEMA_VERSION:
        what = (
            f"was made by a newer ndt-offline (schema {version}, this one knows {SCHEMA_VERSION})"
        )
        raise UsageError(what, path=store, remedy="pip install --upgrade ndt-offline")
    if version < SCHEMA_VERSION or "setup" not in results.attrs:
        return None
    block, setup = results.attrs.get("block"), results.attrs["setup"]
    whole = setup is None or (isinstance(setup, dict) and setup.keys() >= ABOUT)
    needed = {*STEPPED, "derived"} - (_being_made(results.attrs) if setup is None else set())
    whole = whole and all(name in results.root for name in needed)
    if type(block) is not int or block < 1 or not whole:
        raise damaged(store, ValueError("groups or attributes are missing"))
    return results


def _being_made(attrs: Mapping[str, Any]) -> set[str]:
    """Spaces that a kill may have left between the removal of the old one and the new one."""
    known = attrs.get("spaces")
    return {name for name, key in known.items() if key == ""} if isinstance(known, dict) else set()


def _left(path: Path) -> bool:
    """Whether a kill leaves such a name; in a bucket, half of a store that was being removed."""
    return LEFT in path.name or (is_remote(path) and path.name in (*STEPPED, GROUP, "derived"))


def _unchanged(results: Results, steps: np.ndarray) -> int:
    """Rows at the front that have the same step as before and a place in every array."""
    old = results.steps
    common = min(len(old), len(steps), *(array.shape[0] for _, array in stepped(results.root)))
    differs = np.flatnonzero(old[:common] != steps[:common])
    return int(differs[0]) if len(differs) else common


def _done(run: Run, results: Results, key: int, rows: int) -> np.ndarray:
    """Rows whose mark says that they are done: [rows]."""
    outcomes = results.outcomes[:rows]
    bad = outcomes > OUTCOME["ok"]
    expected = np.array([row_mark(key, entry) for entry in run.entries[:rows]], np.uint64)
    for row in np.flatnonzero(bad).tolist():
        expected[row] = bad_mark(key, run.entries[max(0, row - SEGMENT) : row + 1])
    done: np.ndarray = results.fingerprints[:rows] == expected
    return done & (outcomes != OUTCOME["not_done"])  # which a chunk that was lost reads as


def _passing(results: Results, rows: int) -> np.ndarray:
    """Rows that could not be used because of a fault that may be gone by now: [rows]."""
    bad = np.flatnonzero(results.outcomes[:rows] > OUTCOME["ok"])
    problems = results.root["records/problem"][:rows] if len(bad) else []
    passing = np.zeros(rows, bool)
    passing[[row for row in bad.tolist() if is_passing(str(problems[row]))]] = True
    return passing


def _there(results: Results, rows: int, length: int) -> np.ndarray:
    """Whether the values of rows that are marked as measured are in the store: [rows].

    A chunk that was lost reads as its fill value, without an error.
    """
    marked = (results.fingerprints[:rows] != 0) & (results.outcomes[:rows] == OUTCOME["ok"])
    there = np.ones(rows, bool)
    for space in SPACES:
        status = np.asarray(results.root[f"{space}/status"][:rows])
        there &= (status != STATUS["not_computed"]).all(axis=1)
        spectra = results.root[f"{space}/singular_values"]
        wide = spectra.chunks[1]
        stored = files_below(results.path / space / "singular_values" / "c")
        finite = status == STATUS["ok"]
        for start in range(0, rows, length):
            for first in range(0, status.shape[1], wide):
                chunk = f"{start // length}/{first // wide}/0"
                part = finite[start : start + length, first : first + wide]
                if part.any() and chunk not in stored:
                    there[start : start + length] &= ~part.any(axis=1)
    for lost in known_chunks(results) - probe_chunks(results):
        there[lost * length : (lost + 1) * length] = False
    return there | ~marked


def probe_chunks(results: Results) -> set[int]:
    """The chunks of the probe's loss and accuracy that are on disk; those without any are not."""
    stored = files_below(results.path / "signals/probe/c")
    return {int(name.removesuffix("/0")) for name in stored if _CHUNK.fullmatch(name)}


def known_chunks(results: Results) -> set[int]:
    """Those that were there when the last replay ended."""
    return set(results.root["signals/probe"].attrs.get(CHUNKS, []))


def remember_chunks(results: Results) -> None:
    """So that one which is lost is missed: a loss that nobody knows is NaN as well."""
    found = probe_chunks(results)
    if found != known_chunks(results):
        results.root["signals/probe"].attrs[CHUNKS] = sorted(found)
    remember_layers(results)


def _blocks(run: Run, done: np.ndarray, length: int, ends: bool = False) -> tuple[Block, ...]:
    blocks = []
    for start in range(0, len(done), length):
        stop = min(start + length, len(done))
        todo = (start + np.flatnonzero(~done[start:stop])).tolist()
        if todo:
            blocks.append(Block.of(run.entries, start, stop, todo, ends))
    return tuple(blocks)
