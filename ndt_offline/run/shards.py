"""Checkpoints in several safetensors files, and the index that says which tensor lies where.

    model.safetensors.index.json    {"weight_map": {tensor: file}}, as Hugging Face writes it

An index is input: it may name plain files of its own folder and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.run import checkpoint, container
from ndt_offline.run.attempt import Entry
from ndt_offline.run.layout import MAX_TENSORS, Layout, Vectors, check_name
from ndt_offline.run.naming import MAX_NAME
from ndt_offline.storage.regular import read_regular

INDEX = (".safetensors.index.json", ".bin.index.json")
MAX_INDEX, MAX_FILES = 2**25, 2_000


@dataclass(frozen=True)
class Index:
    """Which file of the folder holds which tensor."""

    where: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.where.values())))


def read_index(path: Path) -> Index:
    """Raises DamagedError where it cannot be read, RefusedError where it names what it may not."""
    try:
        body = json.loads(read_regular(path, MAX_INDEX))
        where = body["weight_map"]
        pairs = dict(where.items())
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError("is no index: a table `weight_map` is expected", path=path) from None
    if not pairs or len(pairs) > MAX_TENSORS:
        raise RefusedError(f"names {len(pairs)} tensors; 1 to {MAX_TENSORS} are read", path=path)
    suffix = next(kind.removesuffix(".index.json") for kind in INDEX if path.name.endswith(kind))
    for tensor, file in pairs.items():
        if not _plain(file, suffix):
            what = f"names {str(file)[:80]!r}, which is no {suffix} file of its own folder"
            raise RefusedError(what, path=path)
        try:
            check_name(tensor)
        except NdtError as error:
            raise error.at(path=path) from None
    index = Index(pairs)
    if len(index.files) > MAX_FILES:
        raise RefusedError(f"names {len(index.files)} files; at most {MAX_FILES}", path=path)
    return index


def read_shards(entry: Entry) -> tuple[Layout, Vectors]:
    """The tensors of every part; each part must hold just those that the index says it holds."""
    assert entry.path is not None
    index = read_index(entry.path)
    parts = {path.name: path for path in entry.parts}
    tensors: dict[str, tuple[str, tuple[int, ...], container.Bytes]] = {}
    for file in index.files:
        if file not in parts:
            raise DamagedError(f"the index names {file!r}, which was not there", path=entry.path)
        part = Entry(entry.step, entry.attempt, parts[file])
        try:
            found = container.parse(checkpoint.read_bytes(part)).tensors
        except NdtError as error:
            raise error.at(path=part.path) from None
        wrong = found.keys() ^ {name for name, where in index.where.items() if where == file}
        if wrong:
            what = f"tensor {min(wrong)[:80]!r} is not where the index says"
            raise DamagedError(what, path=part.path)
        tensors |= found
    return checkpoint.plain(container.Contents({}, tensors))


def _plain(file: object, suffix: str) -> bool:
    return (
        isinstance(file, str)
        and file.endswith(suffix)
        and len(file) <= MAX_NAME
        and file.isprintable()
        and not file.startswith(".")
        and not set(file) & set("/\\:")
    )
