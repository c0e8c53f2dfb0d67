"""Checkpoints that other programs wrote: what a folder of them holds, by step, and their weights.

    model_000100.safetensors, step-100.safetensors      a step in the name
    checkpoint-100/model.safetensors                    the folders of Hugging Face's Trainer,
    checkpoint-100/model.safetensors.index.json           in several files too
    checkpoint-100/.metadata, __0_0.distcp              torch.distributed.checkpoint

Steps need no constant stride. Losses and gradient norms come from `trainer_state.json`, where
there is one. Nothing here runs what a file says; pickles are listed and left to `import`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType

from ndt_offline.errors import NdtError
from ndt_offline.run import checkpoint
from ndt_offline.run.attempt import Entry, Problem
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.distcp import read_distributed
from ndt_offline.run.history import read_history
from ndt_offline.run.identity import content
from ndt_offline.run.shards import read_shards
from ndt_offline.run.units import METADATA, Unit, survey


def discover(folder: Path) -> tuple[list[Entry], list[Problem]]:
    """Entries by step, and what was found but could not be used."""
    found = survey(folder)
    problems = list(found.problems)
    units = by_step([unit for unit in found.units if not unit.pickled], problems)
    pickles = [unit for unit in found.units if unit.pickled and unit.step not in units]
    for unit in pickles:
        what, remedy = "holds pickled objects; not opened", f"ndt-offline import {folder} --out RUN"
        problems.append(Problem(what, str(unit.path), unit.step, remedy))
    return entries_of(folder, units, problems), problems


def by_step(units: Iterable[Unit], problems: list[Problem]) -> dict[int, Unit]:
    """The unit of each step, by step; one that has none, or the same as another, is a problem."""
    pairs = ((unit, unit.step) for unit in units)
    found = first_of_each(pairs, problems, "its name", lambda unit: "/".join(unit.names))
    return dict(sorted(found.items()))


def first_of_each(
    pairs: Iterable[tuple[Unit, int | None]],
    problems: list[Problem],
    places: str,
    name: Callable[[Unit], str],
) -> dict[int, Unit]:
    """From units and their steps, looked for in `places`: the first unit of each step."""
    found: dict[int, Unit] = {}
    for unit, step in pairs:
        if step is None:
            problems.append(Problem(f"no step in {places}; left out", str(unit.path)))
        elif step in found:
            what = f"has the same step as {name(found[step])}; left out"
            problems.append(Problem(what, str(unit.path), step, "give each step one file"))
        else:
            found[step] = unit
    return found


def entries_of(folder: Path, units: dict[int, Unit], problems: list[Problem]) -> list[Entry]:
    """Entries with the scalars that were logged at their steps."""
    newest = [unit.path.parent for _, unit in reversed(units.items())]
    scalars = read_history(dict.fromkeys([*newest, folder]), problems)
    return [
        Entry(
            step,
            0,
            unit.path,
            scalars=MappingProxyType(scalars.get(step, {})),
            parts=unit.parts,
        )
        for step, unit in units.items()
    ]


def read_parts(entry: Entry) -> Decoded:
    """The tensors of a checkpoint that lies in several files; raises NdtError with the path."""
    assert entry.path is not None
    try:
        read = read_distributed if entry.path.name == METADATA else read_shards
        layout, vectors = read(entry)
    except NdtError as error:
        raise error.at(path=entry.path) from None
    except MemoryError:
        raise checkpoint.too_large(entry) from None
    return Decoded(layout, vectors, content(layout, vectors))
