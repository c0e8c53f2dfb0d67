"""Entropy coding of unsigned integers by kept libraries.

    pco     pcodec: integers in bins with offsets (https://github.com/pcodec/pcodec)
    zstd    Zstandard, level 1, for elements of one byte (files of the first version: after a byte
            shuffle, for all)
    sorted  a reordering, not a coder: elements sorted, stably, by the size of their last change,
            which both sides know; coded in pages, each page then has bins of its own

Decoding writes into an array of the size that the table gives, whatever the coded bytes declare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import Shuffle, Zstd

from ndt_offline.errors import DamagedError
from ndt_offline.run.layout import Bytes, aligned

Integers = npt.NDArray[Any]

LEVEL = 8  # pcodec's own default; 4 loses 2.5 % and saves a quarter of the time
PAGES = {"exact": 4096, "grid": 2048}  # elements of a page; halved: 2 % smaller, 0.2 ms per MB more


def pco_encode(values: Integers, page: int | None = None) -> bytes:
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

    config = ChunkConfig(
        compression_level=LEVEL,
        mode_spec=ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        **({"paging_spec": PagingSpec.equal_pages_up_to(page)} if page else {}),
    )
    return bytes(standalone.simple_compress(values, config))


def pco_decode(coded: Bytes, dtype: str, count: int) -> Integers:
    from pcodec import standalone

    out: Integers = aligned(count, dtype)
    try:
        progress = standalone.simple_decompress_into(coded.tobytes(), out)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DamagedError(f"pco: {error}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how Rust's panics arrive
            raise
        raise DamagedError("pco: the coded bytes are not what pco writes") from None
    if progress.n_processed != count or not progress.finished:
        raise DamagedError(f"pco: {progress.n_processed} elements, expected {count}")
    return out


def zstd_encode(values: Integers) -> bytes:
    return bytes(Zstd(level=1, checksum=True).encode(values.view(np.uint8)))


def zstd_decode(coded: Bytes, size: int, shuffled: int = 1) -> Bytes:
    """Bytes of a frame; shuffled: bytes per element, where a byte shuffle came before."""
    plain = np.empty(size, np.uint8)
    try:
        Zstd().decode(coded, out=plain)  # refuses a frame that declares another size
    except (RuntimeError, ValueError) as error:
        raise DamagedError(f"zstd: {error}") from None
    if shuffled == 1:
        return plain
    out = np.empty(size, np.uint8)
    Shuffle(shuffled).decode(plain, out=out)
    return out


def by_class(classes: Bytes) -> npt.NDArray[np.intp]:
    """The order of elements by size class, equal ones as they lie."""
    return np.argsort(classes, kind="stable")  # a radix sort for bytes


def unsorted(values: Integers, order: npt.NDArray[np.intp]) -> Integers:
    out: Integers = aligned(len(values), values.dtype)
    out[order] = values
    return out
