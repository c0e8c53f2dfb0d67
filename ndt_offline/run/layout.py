"""The tensor table of a checkpoint: names, dtypes, shapes, and aliases of tied tensors.

Tensors of one dtype are stored as one vector, in the order of their names: small tensors share
a compression frame, and a checkpoint is as many vectors as it has dtypes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import RefusedError

Bytes = npt.NDArray[np.uint8]
Vectors = dict[str, Bytes]  # dtype -> the bytes of every tensor of that dtype

LINE = 64  # bytes of a cache line; torch's own memory begins on multiples of it

# Names as torch prints them, without "torch."; bytes per element.
ITEMSIZE = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4,
    "uint64": 8, "int64": 8, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1, "float16": 2, "bfloat16": 2, "float32": 4,
    "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip

MAX_TENSORS, MAX_DIMENSIONS, MAX_NAME, MAX_BYTES = 20_000, 16, 1_000, 2**46


def aligned(count: int, dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
    """An empty array that begins on a whole cache line, so that torch can take it as it is."""
    size = count * np.dtype(dtype).itemsize
    room = np.empty(size + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    return room[begin : begin + size].view(dtype)


@dataclass(frozen=True)
class Tensor:
    """One row of the table."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class Layout:
    """The tensors of a checkpoint, sorted by dtype and name, and {alias: stored name}."""

    tensors: tuple[Tensor, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, shapes: Mapping[str, tuple[str, tuple[int, ...]]], aliases: Mapping[str, str]
    ) -> Layout:
        """From {name: (dtype, shape)}; raises RefusedError for a table no model would have."""
        rows = [Tensor(name, dtype, tuple(shape)) for name, (dtype, shape) in shapes.items()]
        layout = cls(tuple(sorted(rows, key=lambda t: (t.dtype, t.name))), dict(aliases))
        _check(layout)
        return layout

    @cached_property
    def key(self) -> str:
        """sha256 of the table: the name of its file."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of the vector of each dtype."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
        return sizes

    @property
    def nbytes(self) -> int:
        return sum(self.sizes.values())

    def spans(self) -> Iterator[tuple[Tensor, slice]]:
        """Each tensor and where its bytes lie in the vector of its dtype."""
        at: dict[str, int] = {}
        for tensor in self.tensors:
            start = at.get(tensor.dtype, 0)
            at[tensor.dtype] = start + tensor.nbytes
            yield tensor, slice(start, start + tensor.nbytes)

    def table(self) -> list[list[Any]]:
        return [[t.name, t.dtype, list(t.shape)] for t in self.tensors]

    @cached_property
    def rows(self) -> bytes:
        """The table as JSON: what a content checksum begins with."""
        return json.dumps(self.table(), separators=(",", ":"), ensure_ascii=True).encode()

    def to_json(self) -> str:
        body = {"tensors": self.table(), "aliases": dict(sorted(self.aliases.items()))}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Layout:
        try:
            body = json.loads(text)
            shapes = {str(n): (str(d), tuple(map(int, s))) for n, d, s in body["tensors"]}
            if len(shapes) != len(body["tensors"]):
                raise ValueError("a tensor is named twice")
            aliases = {str(a): str(n) for a, n in body["aliases"].items()}
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            OverflowError,
        ) as error:
            raise RefusedError(f"not a tensor table: {error}") from None
        return cls.of(shapes, aliases)


def _check(layout: Layout) -> None:
    if len(layout.tensors) + len(layout.aliases) > MAX_TENSORS:
        raise RefusedError(f"{len(layout.tensors)} tensors; at most {MAX_TENSORS} are read")
    for tensor in layout.tensors:
        check_tensor(tensor.name, tensor.dtype, tensor.shape)
    names = {tensor.name for tensor in layout.tensors}
    for alias, name in layout.aliases.items():
        check_name(alias)
        if name not in names or alias in names:
            raise RefusedError(f"alias {alias!r} of {name!r} does not fit the table")
    if layout.nbytes > MAX_BYTES:
        raise RefusedError(f"{layout.nbytes} bytes declared; at most {MAX_BYTES} are read")


@lru_cache(maxsize=4096)  # the same few rows stand in every checkpoint
def check_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Raise RefusedError for a row that no state dict would have."""
    check_name(name)
    if dtype not in ITEMSIZE:
        raise RefusedError(f"tensor {name!r} has dtype {dtype!r}, which is not known")
    if len(shape) > MAX_DIMENSIONS or any(n < 0 or n > MAX_BYTES for n in shape):
        raise RefusedError(f"tensor {name!r} has shape {shape}, which is not plausible")


def check_name(name: str) -> None:
    """Names reach terminals, tables and pages: no control characters, no way out of a folder."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise RefusedError(f"tensor name {name[:60]!r} is empty, too long or not printable")
    if ".." in PurePosixPath(name).parts or name == "__metadata__":
        raise RefusedError(f"tensor name {name!r} is not allowed")


def clashes(tables: Iterable[Layout]) -> dict[str, list[tuple[int, ...]]]:
    """{tensor: its shapes} of those that have another shape in another table."""
    found: dict[str, dict[tuple[int, ...], None]] = {}
    for table in tables:
        for tensor in table.tensors:
            found.setdefault(tensor.name, {})[tensor.shape] = None
    return {name: list(shapes) for name, shapes in found.items() if len(shapes) > 1}
