"""graph.json and graph.safetensors: written by rename, read without running anything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.graph.document import Document, Slot, Value, dump
from ndt_offline.graph.parsing import MAX_BYTES, parse
from ndt_offline.storage.regular import read_regular

if TYPE_CHECKING:
    import torch

GRAPH, CONSTANTS = "graph.json", "graph.safetensors"
MAX_HEADER = 8 << 20
_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_document(path: Path) -> Document:
    """The document in a graph.json; runs nothing and loads no torch."""
    try:
        return parse(_read(path, MAX_BYTES))
    except NdtError as error:
        raise error.at(path=path) from None


def with_checksum(document: Document, constants: dict[str, torch.Tensor]) -> Document:
    """The document with the checksum of the bytes its constants are stored as."""
    if not constants:
        return document
    return replace(document, constants_sha256=hashlib.sha256(_pack(constants)).hexdigest())


def save_graph(document: Document, constants: dict[str, torch.Tensor], folder: Path) -> None:
    """Both files, the constants first: a graph.json on disk always finds its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    if constants:
        _write(folder / CONSTANTS, _pack(constants))
    _write(folder / GRAPH, dump(document))


def _pack(constants: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return bytes(save({key: _as_real(tensor) for key, tensor in sorted(constants.items())}))


def _as_real(tensor: torch.Tensor) -> torch.Tensor:
    """A copy; complex numbers, which safetensors lacks, as a last axis of two real ones."""
    import torch

    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).clone()


def _write(path: Path, data: bytes) -> None:
    """All of the file or none of it, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_regular(path, limit)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise RefusedError(f"the file is larger than {limit} bytes", path=path) from None
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None


def constants_reader(document: Document, path: Path) -> Callable[[], dict[str, Any]]:
    """A function that reads the document's constants from graph.safetensors when called."""

    def read() -> dict[str, Any]:
        if not document.constants:
            return {}
        size = sum(slot.value.bytes for slot in document.constants)
        try:
            data = _read(path, size + MAX_HEADER + 8)
            if hashlib.sha256(data).hexdigest() != document.constants_sha256:
                raise DamagedError("the constants are not those the graph was recorded with")
            return _unpack(data, document.constants)
        except NdtError as error:
            raise error.at(path=path) from None

    return read


def _unpack(data: bytes, slots: tuple[Slot, ...]) -> dict[str, Any]:
    """Exactly the declared tensors; the header is believed in nothing it says beyond them."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise RefusedError("the header's length is wrong")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise RefusedError("the header is not valid JSON") from None
    body = memoryview(data)[8 + length :]
    if not isinstance(header, dict):
        raise RefusedError("the header is no object")
    return {slot.key: _tensor(header.get(slot.key), slot, body) for slot in slots}


_PARTS = {"complex64": "float32", "complex128": "float64"}


def _tensor(entry: Any, slot: Slot, body: memoryview) -> Any:
    import torch

    part = _PARTS.get(slot.value.dtype)
    stored = Value(part, (*slot.value.shape, 2)) if part else slot.value
    offsets: Any = entry.get("data_offsets") if isinstance(entry, dict) else None
    fits = (
        isinstance(offsets, list)
        and [type(offset) for offset in offsets] == [int, int]
        and 0 <= offsets[0] <= offsets[1] <= len(body)
        and offsets[1] - offsets[0] == stored.bytes
        and isinstance(entry.get("dtype"), str)
        and _SAFETENSORS.get(entry["dtype"]) == stored.dtype
        and entry.get("shape") == list(stored.shape)
    )
    if not fits:
        raise RefusedError(f"constant {slot.key} is not {slot.value} as the graph says")
    dtype = getattr(torch, stored.dtype)
    raw = bytearray(body[offsets[0] : offsets[1]])
    plain = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    tensor = plain.reshape(stored.shape)
    return torch.view_as_complex(tensor) if part else tensor
