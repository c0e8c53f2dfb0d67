"""Units: the file, or the files together, in which one checkpoint of others lies.

    step_100.safetensors                         a file
    model.safetensors.index.json + its shards    an index names the parts
    .metadata + __0_0.distcp, ...                a folder of torch.distributed.checkpoint
    model.pt, last.ckpt, pytorch_model.bin       pickles: listed, opened by `import` alone

Only names are looked at, and indexes read; no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ndt_offline.errors import NdtError
from ndt_offline.run.attempt import Problem
from ndt_offline.run.naming import WHOLE, is_shard, stem, step_in
from ndt_offline.run.shards import INDEX, read_index

METADATA, DATA = ".metadata", ".distcp"
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
DEPTH, MOST = 3, 200_000  # folders below the given one; names looked at
# What stands beside a model's weights and is none.
_BESIDE = re.compile(
    r"(optim(izer)?|scheduler|scaler|sampler|rng_state|random_state|training_arg|dataloader|ema|"
    r"trainer_state|loss_(history|scaler|curve|log|value))s?(?-i:(?![a-z]))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Unit:
    """One checkpoint: its file, or the file that lists its parts; `names` lead there."""

    path: Path
    names: tuple[str, ...]
    parts: tuple[Path, ...] = ()

    @property
    def step(self) -> int | None:
        whole = self.path.name == METADATA
        return step_in(self.names[:-1] if whole else self.names, file=not whole)

    @property
    def pickled(self) -> bool:
        return self.path.name.removesuffix(".index.json").endswith(PICKLES)


@dataclass
class Survey:
    """What a folder holds: units by their names, and what could not be understood."""

    units: list[Unit] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seen: int = 0


def survey(folder: Path) -> Survey:
    """Look through a folder, `DEPTH` levels down; hidden folders and stores are not entered."""
    found = Survey()
    _look(folder, (), found)
    return found


def _look(folder: Path, names: tuple[str, ...], found: Survey) -> None:
    files, folders = {}, []
    try:
        for path in sorted(folder.iterdir(), key=lambda p: p.name):
            found.seen += 1
            if found.seen > MOST:
                if found.seen == MOST + 1:  # said once; other folders come here too
                    what = f"holds more than {MOST} names; the rest was left out"
                    found.problems.append(Problem(what, str(folder), None, "give a smaller folder"))
                break
            if path.name == METADATA or not path.name.startswith("."):
                if path.is_dir():
                    folders.append(path)
                else:
                    files[path.name] = path
    except OSError as error:
        found.problems.append(Problem(f"cannot be listed: {error.strerror}", str(folder)))
        return
    data = tuple(path for name, path in files.items() if name.endswith(DATA))
    if METADATA in files and data:
        found.units.append(Unit(files[METADATA], (*names, METADATA), data))
        return
    units, problems = _units(files, names)
    found.units += units
    found.problems += problems
    for path in folders if len(names) < DEPTH else ():
        if not path.name.endswith(".zarr"):
            _look(path, (*names, path.name), found)


def _units(files: dict[str, Path], names: tuple[str, ...]) -> tuple[list[Unit], list[Problem]]:
    """The units of one folder's files."""
    units, problems, taken = [], [], set()
    for name in [n for n in files if n.endswith(INDEX)]:
        taken.add(name)
        try:
            parts = read_index(files[name]).files
            missing = [part for part in parts if part not in files]
            if missing:
                told = f"{missing[0]!r} and {len(missing) - 1} more" if missing[1:] else missing[0]
                raise NdtError(f"lacks {told}, which it names")
        except NdtError as error:
            problems.append(Problem(f"{error.what}; left out", str(files[name])))
            taken.update(part for part in files if is_shard(part))
            continue
        taken.update(parts)
        units.append(Unit(files[name], (*names, name), tuple(files[part] for part in parts)))
    plain = [n for n in files if n not in taken and n.endswith(".safetensors")]
    pickled = [n for n in files if n not in taken and n.endswith(PICKLES)]
    problems += list(_orphans(files, plain))
    for own in (_chosen(plain, names), _chosen(pickled, names)):
        units += [Unit(files[name], (*names, name)) for name in own]
    return units, problems


def _orphans(files: dict[str, Path], plain: list[str]) -> Iterator[Problem]:
    for name in [n for n in plain if is_shard(n)]:
        plain.remove(name)
        what = "one part of several, without the index that names them; left out"
        yield Problem(what, str(files[name]))


def _chosen(files: list[str], names: tuple[str, ...]) -> list[str]:
    """The files that hold weights: in a folder of one step, the whole model where there is one."""
    files = [name for name in files if not _BESIDE.match(name)]
    whole = [name for name in files if stem(name) in WHOLE]
    if not whole or step_in(names, file=False) is None:
        return files
    return [min(whole, key=lambda name: WHOLE.index(stem(name)))]
