"""Coding of checkpoints: {name: (dtype, shape, bytes)} <-> one safetensors file.

Each dtype's tensors are one vector; each vector passes a *chain* of filters named in the file's
metadata, so that a reader decides by what the file says. numpy and kept coders only, no torch.

    linear, previous   what a prediction from the checkpoints before leaves (see `prediction`),
                       unsigned; signed after it
    sorted             elements by the size of their last change (see `entropy`); after linear,
                       for elements of two bytes, and for others where small files are asked for
    pco, zstd          the coder, last; shuffle before zstd is the byte shuffle it works on
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np

from ndt_offline.errors import DamagedError, RefusedError
from ndt_offline.run import container, entropy, prediction
from ndt_offline.run.grid import Scales, from_grid, scales_of, to_grid
from ndt_offline.run.integers import width
from ndt_offline.run.layout import ITEMSIZE, Bytes, Layout, Vectors, aligned

Tensors = Mapping[str, tuple[str, tuple[int, ...], Any]]  # bytes: any buffer

FORMAT = "ndt-offline/1"
Grid = Mapping[str, list[int | None]]  # exponents of the steps of each tensor, by dtype
FILTERS: tuple[list[str], ...] = (
    [],
    ["previous"],
    ["previous", "signed"],
    ["linear"],
    ["linear", "signed"],
    ["linear", "sorted"],
    ["linear", "signed", "sorted"],
)
CODERS = (["pco"], ["zstd"], ["shuffle", "zstd"])


def to_vectors(tensors: Tensors) -> tuple[Layout, Vectors]:
    """The table of the tensors and one vector of bytes per dtype."""
    layout = Layout.of({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}, {})
    vectors = {dtype: np.empty(size, np.uint8) for dtype, size in layout.sizes.items()}
    for tensor, span in layout.spans():
        data = np.frombuffer(bytes(tensors[tensor.name][2]), np.uint8)
        if len(data) != tensor.nbytes:
            raise RefusedError(f"tensor {tensor.name!r}: {len(data)} bytes, not {tensor.nbytes}")
        vectors[tensor.dtype][span] = data
    return layout, vectors


def to_tensors(layout: Layout, vectors: Vectors) -> dict[str, tuple[str, tuple[int, ...], Bytes]]:
    return {t.name: (t.dtype, t.shape, vectors[t.dtype][span]) for t, span in layout.spans()}


def encode(tensors: Tensors, before: Sequence[Tensors] = ()) -> bytes:
    """A self-contained file: the tensor table stands in its metadata.

    before: the checkpoints before this one in the segment, newest first; pass the same to
    `decode`. Lossless: every bit pattern comes back, NaN payloads and signed zeros included.
    """
    layout, vectors = to_vectors(tensors)
    base = [to_vectors(t)[1] for t in before]
    return encode_vectors(layout, vectors, base, {"tensors": layout.to_json()})


def decode(
    data: bytes, before: Sequence[Tensors] = ()
) -> dict[str, tuple[str, tuple[int, ...], Bytes]]:
    """The tensors of a file that `encode` made, given the same checkpoints before it."""
    contents = container.parse(data)
    if "tensors" not in contents.metadata:
        raise RefusedError("the file does not carry its tensor table", remedy="open it as a run")
    layout = Layout.from_json(contents.metadata["tensors"])
    return to_tensors(layout, decode_vectors(contents, layout, [to_vectors(t)[1] for t in before]))


def encode_vectors(
    layout: Layout,
    vectors: Vectors,
    before: Sequence[Vectors],
    metadata: Mapping[str, str],
    grid: Grid | None = None,
    small: bool = False,
) -> bytes:
    """A safetensors file of U8 tensors, one per dtype, with the chains in its metadata.

    before: the vectors of the checkpoints before, newest first; those that do not fit a dtype's
    vector are not used. grid: the values are multiples of these steps (see `grid`). small: the
    smallest coding we know, at twice the time.
    """
    chains, coded = {}, {}
    for dtype, vector in vectors.items():
        scales = scales_of(layout, grid[dtype], dtype) if grid and dtype in grid else None
        bases = _fitting(before, dtype, len(vector))
        chains[dtype], coded[dtype] = _encode_vector(vector, bases, dtype, scales, small)
    names = sorted(coded)
    meta = {"format": FORMAT, "layout": layout.key, "codec": json.dumps(chains), **metadata}
    if grid:
        meta["grid"] = json.dumps(grid)
    head = container.header(((n, "uint8", (len(coded[n]),)) for n in names), meta)
    return b"".join([head, *(coded[name] for name in names)])


def decode_vectors(
    contents: container.Contents, layout: Layout, before: Sequence[Vectors]
) -> Vectors:
    """The vectors of a coded file; sizes are those of the table, whatever the file declares."""
    if set(contents.tensors) != set(layout.sizes):
        raise DamagedError(f"holds {sorted(contents.tensors)}, its table {sorted(layout.sizes)}")
    try:
        chains = _chains(contents.metadata["codec"])
        grid = grid_of(contents)
        vectors = {}
        for dtype, size in layout.sizes.items():
            scales = scales_of(layout, grid[dtype], dtype) if dtype in grid else None
            coded = contents.tensors[dtype][2]
            vectors[dtype] = _decode_vector(coded, chains[dtype], dtype, size, before, scales)
        return vectors
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedError(f"codec chain or coded bytes are not readable: {error!r}") from None
    except MemoryError:
        raise DamagedError(f"{layout.nbytes} bytes declared: more than the memory") from None


@lru_cache(maxsize=4)  # read-only
def _chains(text: str) -> Any:
    return json.loads(text)


def grid_of(contents: container.Contents) -> dict[str, list[int | None]]:
    """The grid that a file says its values lie on; empty for a lossless one."""
    text = contents.metadata.get("grid")
    grid = {} if text is None else json.loads(text)
    if not isinstance(grid, dict):
        raise DamagedError("the grid is not a table")
    return grid


def _fitting(before: Sequence[Vectors], dtype: str, size: int) -> list[Bytes]:
    fitting = takewhile(lambda v: dtype in v and len(v[dtype]) == size, before[:2])
    return [vectors[dtype] for vectors in fitting]


def _encode_vector(
    vector: Bytes, bases: list[Bytes], dtype: str, scales: Scales | None, small: bool
) -> tuple[list[str], bytes]:
    if not len(vector):
        return [], b""
    chain = [[], ["previous"], ["linear"]][len(bases)]
    if chain:
        signed = width(dtype) > 1
        values = prediction.residuals(vector, bases, dtype, scales, signed)
        chain = [*chain, "signed"] if signed else chain
    elif scales:
        values = to_grid(vector, dtype, scales).view(_unsigned(dtype))
    else:
        values = vector.view(_unsigned(dtype))
    ways: list[tuple[list[str], Any]] = [([], vector)]
    if len(bases) == 2 and values.itemsize > 1 and (small or values.itemsize == 2):
        # Elements of two bytes gain a tenth to a quarter by it, the others less than their time.
        order = entropy.by_class(prediction.expect(bases, dtype, scales)[1])
        page = entropy.PAGES["grid" if scales else "exact"]
        ways.append(([*chain, "sorted", "pco"], entropy.pco_encode(values[order], page)))
    # Where hardly anything changed, the pages of the sorted ones cost more than what is in them.
    if len(ways) == 1 or values.itemsize > 2 or len(ways[1][1]) < len(vector) >> 6:
        ways.append(_coded(values, chain))
    chain, coded = min(ways, key=lambda way: len(way[1]))
    return chain, bytes(coded)


def _coded(values: Any, chain: list[str]) -> tuple[list[str], bytes]:
    if values.itemsize == 1:
        return [*chain, "zstd"], entropy.zstd_encode(values)
    return [*chain, "pco"], entropy.pco_encode(values)


def _decode_vector(
    coded: Bytes,
    chain: Any,
    dtype: str,
    size: int,
    before: Sequence[Vectors],
    scales: Scales | None,
) -> Bytes:
    if chain == []:
        if len(coded) != size:
            raise DamagedError(f"{dtype}: {len(coded)} bytes, expected {size}")
        plain = aligned(size)
        plain[:] = coded
        return plain
    filters, coder = _split(chain, dtype)
    kind = f"i{width(dtype)}" if "signed" in filters else _unsigned(dtype)
    count = size // np.dtype(kind).itemsize
    if coder == "pco":
        values = entropy.pco_decode(coded, kind, count)
    else:
        shuffled = ITEMSIZE[dtype] if "shuffle" in chain else 1
        values = entropy.zstd_decode(coded, size, shuffled).view(kind)
    if not filters:
        return (
            from_grid(values.view(f"i{values.itemsize}"), dtype, scales)
            if scales
            else (values.view(np.uint8))
        )
    bases = _fitting(before, dtype, size)[: prediction.NEEDS[filters[0]]]
    if len(bases) < prediction.NEEDS[filters[0]]:
        raise DamagedError(f"{dtype}: the checkpoints it builds on do not fit")
    if "sorted" in filters:
        predicted, classes = prediction.expect(bases, dtype, scales)
        values = entropy.unsorted(values, entropy.by_class(classes))
        return prediction.restore_expected(values, predicted, dtype, scales)
    return prediction.restore(values, bases, dtype, scales)


def _split(chain: Any, dtype: str) -> tuple[list[str], str]:
    """The filters before the coder, and the coder; RefusedError for what no version wrote."""
    for filters in FILTERS:
        for coder in CODERS:
            if chain == [*filters, *coder]:
                return filters, coder[-1]
    raise RefusedError(
        f"codec chain {str(chain)[:80]} of {dtype} is not known to this version",
        remedy="pip install --upgrade ndt-offline",
    )


def _unsigned(dtype: str) -> str:
    return f"u{width(dtype)}"
