"""Checkpoints of torch.distributed.checkpoint: a folder with `.metadata` and `.distcp` files.

torch's own reader unpickles `.metadata`, and a pickle can run anything. Here it is read by an
unpickler that knows the dozen names which such a file needs, as plain records of its own, and
refuses every other; the pieces of tensors are read with `weights_only=True`. What belongs to an
optimizer, and what is no tensor, is left out.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.run import container, layout
from ndt_offline.run.attempt import Entry
from ndt_offline.run.layout import ITEMSIZE, Layout, Vectors
from ndt_offline.storage.regular import opened, read_regular

MAX_METADATA = 2**26
MODEL = ("model", "module", "state_dict", "model_state_dict")  # where a trainer keeps the model
AROUND = ("app", "state", "checkpoint")  # what may stand around it


class _Plain:
    """A record of the file: attributes as they were stored, whatever its class was."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        elif isinstance(state, tuple):
            self.args = state


def _joined(*parts: Any) -> str:
    return "/".join(map(str, parts))


def _size(numbers: Any = ()) -> tuple[int, ...]:
    return tuple(numbers)


_META = "torch.distributed.checkpoint.metadata"
_KNOWN: Mapping[tuple[str, str], Any] = {
    **{
        (_META, name): _Plain
        for name in (
            "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties",
            "ChunkStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
        )
    },
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _Plain,
    ("torch.serialization", "_get_layout"): _Plain,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (home, name): _joined
        for home in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    **{("torch", name): name for name in ITEMSIZE},
}  # fmt: skip


class _Reader(pickle._Unpickler):
    """Python's own unpickler (the C one takes memory that a file only names), and a list."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise RefusedError(f"its pickle asks for {str(module)[:80]}.{str(name)[:80]}: not run")
        return _KNOWN[module, name]


def read_metadata(path: Path) -> Any:
    """The record `Metadata` of a checkpoint; runs nothing that the file says."""
    try:
        body = _Reader(io.BytesIO(read_regular(path, MAX_METADATA))).load()
    except NdtError as error:
        raise error.at(path=path) from None
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    except Exception as error:  # an unpickler raises almost anything
        raise DamagedError(f"is not readable: {error!r}"[:300], path=path) from None
    return body


def read_distributed(entry: Entry) -> tuple[Layout, Vectors]:
    """The model's tensors, put together from the pieces that the processes wrote."""
    assert entry.path is not None
    about = read_metadata(entry.path)
    files = {path.name: path for path in entry.parts}
    try:
        stored: dict[str, list[Any]] = {}
        for index, info in about.storage_data.items():
            stored.setdefault(index.fqn, []).append((index, info))
        tensors = {
            name: _tensor(about.state_dict_metadata[key], stored.get(key, []), files)
            for key, name in _model_names(about)
        }
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise DamagedError(f"is not readable: {error!r}"[:300], path=entry.path) from None
    if not tensors:
        raise DamagedError("holds no tensor of a model", path=entry.path)
    table = Layout.of({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}, {})
    vectors = {dtype: np.empty(size, np.uint8) for dtype, size in table.sizes.items()}
    for row, span in table.spans():
        vectors[row.dtype][span] = tensors[row.name][2]
    return table, vectors


def _model_names(about: Any) -> Iterator[tuple[str, str]]:
    """(key in the file, name in the model) of every tensor of the model."""
    known = about.state_dict_metadata
    keys = [str(key) for key, value in known.items() if hasattr(value, "chunks")]
    planned = about.planner_data if isinstance(about.planner_data, dict) else {}
    paths = {key: tuple(map(str, planned.get(key, (key,)))) for key in keys}
    if all(len(path) == 1 for path in paths.values()):  # saved flat: one name, dots and all
        paths = {key: tuple(key.split(".")) for key in keys}
        if any(path[0] not in (*MODEL, *AROUND, "optim", "optimizer") for path in paths.values()):
            yield from zip(keys, keys, strict=True)
            return
    wrapped = any(path[0] in (*MODEL, *AROUND) for path in paths.values())
    for key, path in paths.items():
        while path and path[0] in AROUND:
            path = path[1:]
        if len(path) > 1 and path[0] in MODEL:
            yield key, ".".join(path[1:])
        elif not wrapped and not path[0].startswith("optim"):
            yield key, ".".join(path)


def _tensor(
    about: Any, stored: list[Any], files: Mapping[str, Path]
) -> tuple[str, tuple[int, ...], container.Bytes]:
    dtype, shape = about.properties.args[0], tuple(map(int, about.size))
    layout.check_tensor("a tensor", dtype, shape)
    pieces = [_piece(index, info, about, dtype, files) for index, info in stored]
    covered = sum(math.prod(values.shape[:-1]) for _, values in pieces)
    if covered != math.prod(shape):
        raise ValueError(f"pieces of {covered} elements for shape {shape}")
    whole = np.empty((*shape, ITEMSIZE[dtype]), np.uint8)
    filled = np.zeros(shape, np.bool_)
    for start, values in pieces:
        place = tuple(slice(a, a + n) for a, n in zip(start, values.shape[:-1], strict=True))
        if any(s.start < 0 or s.stop > n for s, n in zip(place, shape, strict=True)):
            raise ValueError(f"a piece at {start} lies outside shape {shape}")
        whole[place] = values
        filled[place] = True
    if not filled.all():
        raise ValueError(f"pieces lie over each other and leave gaps in shape {shape}")
    return dtype, shape, whole.reshape(-1)


def _piece(
    index: Any, info: Any, about: Any, dtype: str, files: Mapping[str, Path]
) -> tuple[tuple[int, ...], container.Bytes]:
    """Where a piece of a tensor starts, and its elements as bytes: [..., itemsize]."""
    import torch

    if getattr(info, "transform_descriptors", None):
        raise RefusedError("its pieces are transformed (compressed), which is not read")
    path, offset, length = files.get(info.relative_path), int(info.offset), int(info.length)
    if path is None:
        raise ValueError(f"file {str(info.relative_path)[:80]!r} is not there")
    try:
        with opened(path) as (file, size):
            if not 0 <= offset <= offset + length <= size:
                raise DamagedError(f"{size} bytes; a piece ends at {offset + length}", path=path)
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    try:
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises almost anything
        raise DamagedError(f"a piece is not readable: {error!r}"[:300], path=path) from None
    start = getattr(index, "offset", None)
    start = (0,) * len(about.size) if start is None else tuple(map(int, start))
    chunks = {tuple(map(int, c.offsets)): tuple(map(int, c.sizes)) for c in about.chunks}
    found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None
    if found is None or found != chunks.get(start) or str(tensor.dtype) != f"torch.{dtype}":
        raise DamagedError("a piece is not the tensor that .metadata describes", path=path)
    if tensor.numel() * tensor.itemsize > length:
        raise DamagedError("a piece is larger than its bytes", path=path)
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return start, raw.reshape(*found, ITEMSIZE[dtype])
