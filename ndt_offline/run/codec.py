"""Coding of checkpoints: {name: (dtype, shape, bytes)} <-> one safetensors file.

Each dtype's tensors are one vector; each vector passes a *chain* of filters named in the file's
metadata, so that a reader decides by what the file says. numpy and numcodecs only.

    shuffle   byte k of every element together (Blosc's byte shuffle, Alted 2010)
    zstd      Zstandard, level 1: higher levels gain under 1 %
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numcodecs import Shuffle, Zstd

from ndt_offline.errors import DamagedError, RefusedError
from ndt_offline.run import container
from ndt_offline.run.layout import ITEMSIZE, Bytes, Layout, Vectors

Tensors = Mapping[str, tuple[str, tuple[int, ...], Any]]  # bytes: any buffer

FORMAT = "ndt-offline/1"


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
    layout: Layout, vectors: Vectors, before: Sequence[Vectors], metadata: Mapping[str, str]
) -> bytes:
    """A safetensors file of U8 tensors, one per dtype, with the chains in its metadata."""
    chains, coded = {}, {}
    for dtype, vector in vectors.items():
        chains[dtype], coded[dtype] = _encode_vector(vector, ITEMSIZE[dtype])
    names = sorted(coded)
    meta = {"format": FORMAT, "layout": layout.key, "codec": json.dumps(chains), **metadata}
    head = container.header(((n, "uint8", (len(coded[n]),)) for n in names), meta)
    return b"".join([head, *(coded[name] for name in names)])


def decode_vectors(
    contents: container.Contents, layout: Layout, before: Sequence[Vectors]
) -> Vectors:
    """The vectors of a coded file; sizes are those of the table, whatever the file declares."""
    if set(contents.tensors) != set(layout.sizes):
        raise DamagedError(f"holds {sorted(contents.tensors)}, its table {sorted(layout.sizes)}")
    try:
        chains = json.loads(contents.metadata["codec"])
        return {
            dtype: _decode_vector(contents.tensors[dtype][2], chains[dtype], dtype, size)
            for dtype, size in layout.sizes.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"codec chain or coded bytes are not readable: {error}") from None


def _encode_vector(vector: Bytes, itemsize: int) -> tuple[list[str], bytes]:
    if not len(vector):
        return [], b""
    shuffled = Shuffle(itemsize).encode(vector)
    return ["shuffle", "zstd"], bytes(Zstd(level=1, checksum=True).encode(shuffled))


def _decode_vector(coded: Bytes, chain: Any, dtype: str, size: int) -> Bytes:
    if chain == [] and len(coded) == size:
        return coded.copy()
    if chain != ["shuffle", "zstd"]:
        raise RefusedError(f"codec chain {chain} of {dtype} is not known to this version")
    plain = np.empty(size, np.uint8)
    out = np.empty(size, np.uint8)
    try:
        Zstd().decode(coded, out=plain)  # refuses a frame that declares another size
        Shuffle(ITEMSIZE[dtype]).decode(plain, out=out)
    except (RuntimeError, ValueError) as error:
        raise DamagedError(f"{dtype}: {error}") from None
    return out
