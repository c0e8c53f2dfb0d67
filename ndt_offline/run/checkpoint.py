"""One checkpoint file: written with both checksums, read back only if both match."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ndt_offline.errors import DamagedError, NdtError
from ndt_offline.run import codec, container, durable
from ndt_offline.run.attempt import Entry
from ndt_offline.run.identity import content, crc32c, hex8
from ndt_offline.run.journal import is_step
from ndt_offline.run.layout import Layout, Vectors, aligned
from ndt_offline.storage.regular import opened

RAW = "raw"  # the value of `codec` in a file of plain tensors


@dataclass(frozen=True)
class Written:
    """What the journal says about a file."""

    file: str
    size: int
    file_crc: str
    content: str


@dataclass(frozen=True)
class Decoded:
    """The tensors of a checkpoint, as vectors."""

    layout: Layout
    vectors: Vectors
    content: str
    references: tuple[int, ...] | None = None  # the steps it builds on; None: plain tensors


def file_name(step: int) -> str:
    return f"checkpoints/step_{step:012d}.safetensors"


def write_encoded(
    attempt: Path,
    step: int,
    layout: Layout,
    vectors: Vectors,
    before: Sequence[tuple[int, Vectors]] = (),
    metadata: dict[str, str] | None = None,
    grid: codec.Grid | None = None,
    sync: bool = True,
) -> Written:
    """Encode against the checkpoints `before` (step, vectors; newest first) and write."""
    meta = {"references": json.dumps([s for s, _ in before]), **(metadata or {})}
    bases = [vectors for _, vectors in before]
    data = codec.encode_vectors(layout, vectors, bases, meta, grid, small=grid is not None)
    path = attempt / file_name(step)
    durable.write(path, [data], sync)
    return Written(file_name(step), len(data), hex8(crc32c(data)), content(layout, vectors))


def read(
    entry: Entry, layout_of: Callable[[str], Layout], base: Callable[[int], Vectors]
) -> Decoded:
    """Read, check and decode one checkpoint.

    layout_of: table by its hash. base: vectors of the checkpoint of an earlier step. A delta
    decoded on the wrong base passes the file's checksum; only the checksum of the decoded tensors
    finds it. Raises DamagedError or RefusedError with the path.
    """
    try:
        contents = container.parse(read_bytes(entry))
        steps = None
        if "layout" not in contents.metadata:
            layout, vectors = plain(contents)
        elif contents.metadata.get("codec") == RAW:
            layout = layout_of(contents.metadata["layout"])
            vectors = gather(contents, layout)
        else:
            layout = layout_of(contents.metadata["layout"])
            steps = _references(contents.metadata.get("references", "[]"))
            vectors = codec.decode_vectors(contents, layout, [base(step) for step in steps])
        found = content(layout, vectors)
        if entry.content is not None and found != entry.content:
            raise DamagedError(f"decoded content has checksum {found}, recorded {entry.content}")
    except NdtError as error:
        raise error.at(path=entry.path) from None
    except MemoryError:
        raise too_large(entry) from None
    return Decoded(layout, vectors, found, steps)


def too_large(entry: Entry) -> DamagedError:
    return DamagedError("its tensors are larger than the memory", path=entry.path)


def read_bytes(entry: Entry) -> bytes:
    """The file of a checkpoint, or its part of a packed file, checked against its checksum."""
    if entry.path is None:
        raise DamagedError("the weights of this step were dropped")
    try:
        with opened(entry.path) as (file, there):
            start = entry.offset or 0
            length = there if entry.size is None else entry.size
            if start + length > there or (entry.offset is None and length != there):
                raise DamagedError(f"{there} bytes, recorded were {length}", path=entry.path)
            file.seek(start)
            data = file.read(length)
    except FileNotFoundError:
        raise DamagedError("the file is missing", path=entry.path) from None
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", path=entry.path) from None
    except (MemoryError, OverflowError):
        raise DamagedError("larger than the memory", path=entry.path) from None
    if entry.size is not None and len(data) != entry.size:
        raise DamagedError(f"{len(data)} bytes, recorded were {entry.size}", path=entry.path)
    if entry.file_crc is not None and (checksum := hex8(crc32c(data))) != entry.file_crc:
        what = f"file has checksum {checksum}, recorded was {entry.file_crc}"
        raise DamagedError(what, path=entry.path)
    return data


def plain(contents: container.Contents) -> tuple[Layout, Vectors]:
    """The table and vectors of a file of plain tensors, as any program writes it."""
    layout = Layout.of({n: (d, s) for n, (d, s, _) in contents.tensors.items()}, {})
    return layout, gather(contents, layout)


def gather(contents: container.Contents, layout: Layout) -> Vectors:
    """Plain tensors copied into one vector per dtype; dtypes are those of the table."""
    vectors = {dtype: aligned(size) for dtype, size in layout.sizes.items()}
    for tensor, span in layout.spans():
        found = contents.tensors.get(tensor.name)
        if found is None or len(found[2]) != tensor.nbytes:
            raise DamagedError(f"tensor {tensor.name!r} is missing or has another size")
        vectors[tensor.dtype][span] = found[2]
    return vectors


def _references(text: str) -> tuple[int, ...]:
    """The steps that a checkpoint builds on: at most two, as many as a prediction takes."""
    try:
        steps = json.loads(text)
    except (ValueError, RecursionError):
        steps = None
    if not isinstance(steps, list) or not all(is_step(step) for step in steps):
        raise DamagedError("the list of reference checkpoints is not readable")
    if len(steps) > 2 or len(set(steps)) < len(steps):
        raise DamagedError(f"{len(steps)} reference checkpoints; expected at most 2, different")
    return tuple(steps)
