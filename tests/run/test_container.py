"""The safetensors container: the format's own reader agrees; hostile headers are refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.run import container


def with_header(body: object, data: bytes = b"") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_files_of_the_reference_writer_are_read() -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float16),
        "flags": np.array([True, False]),
    }
    contents = container.parse(save(tensors, {"k": "v"}))
    assert contents.metadata == {"k": "v"}
    assert contents.tensors.keys() == tensors.keys()
    for name, (dtype, shape, data) in contents.tensors.items():
        assert (dtype, shape) == (str(tensors[name].dtype), tensors[name].shape)
        assert data.tobytes() == tensors[name].tobytes()


def test_our_files_are_read_by_the_reference_reader() -> None:
    values = np.arange(5, dtype=np.float64)
    head = container.header([("x", "float64", (5,)), ("n", "int32", ())], {"a": "b"})
    found = load(head + values.tobytes() + np.int32(7).tobytes())
    assert (found["x"] == values).all() and found["n"] == 7


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", DamagedError, "0 bytes"),
        (b"\0" * 7, DamagedError, "7 bytes"),
        ((2**40).to_bytes(8, "little"), RefusedError, "header of"),
        ((100).to_bytes(8, "little") + b"{}", DamagedError, "truncated"),
        (with_header(b"{"), DamagedError, "not JSON"),
        (with_header(b"[" * 100_000), DamagedError, "not JSON"),
        (with_header([]), RefusedError, "not a table"),
        (with_header(b'{"a":1,"a":2}'), RefusedError, "twice"),
        (with_header({"__metadata__": {"a": 1}}), RefusedError, "metadata"),
        (with_header({"a": 5}), RefusedError, "entry"),
        (with_header({"a": entry()}, b"\0" * 4), DamagedError, "truncated"),
        (with_header({"a": entry()}, b"\0" * 12), DamagedError, "declares"),
        (with_header({"a": entry(offsets=(4, 12))}, b"\0" * 12), RefusedError, "gap"),
        (with_header({"a": entry("F13")}, b"\0" * 8), RefusedError, "dtype"),
        (with_header({"a": entry(shape=[3])}, b"\0" * 8), RefusedError, "8 bytes for shape"),
        (with_header({"a": entry(shape=[-2])}, b"\0" * 8), RefusedError, "plausible"),
        (with_header({"a": entry(shape=[True])}, b"\0" * 8), RefusedError, "integers"),
        (with_header({"a": entry(shape="2")}, b"\0" * 8), RefusedError, "integers"),
        (with_header({"a": entry(shape=[1] * 17 + [2])}, b"\0" * 8), RefusedError, "plausible"),
        (with_header({"../x": entry()}, b"\0" * 8), RefusedError, "not allowed"),
        (with_header({"a\u001b[2J": entry()}, b"\0" * 8), RefusedError, "printable"),
        (with_header({"a\0": entry()}, b"\0" * 8), RefusedError, "printable"),
        (with_header({"": entry()}, b"\0" * 8), RefusedError, "empty"),
        (
            with_header({str(i): entry(shape=[0], offsets=(0, 0)) for i in range(20_001)}),
            RefusedError,
            "20001 tensors",
        ),
        (
            with_header({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12),
            RefusedError,
            "overlap",
        ),
    ],
)
def test_hostile_or_damaged_headers(data: bytes, kind: type[NdtError], words: str) -> None:
    with pytest.raises(kind, match=words):
        container.parse(data)


EXAMPLE = save({"w": np.arange(12, dtype=np.float32), "b": np.ones(3, np.float16)}, {"k": "v"})


@given(st.data())
@settings(max_examples=int(os.environ.get("NDT_SLOW", "0")) * 20_000 or 500)
def test_mutated_files_only_ever_raise_our_errors(data: st.DataObject) -> None:
    mutant = bytearray(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        mutant[data.draw(st.integers(0, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutant)))
    for version in (bytes(mutant), bytes(mutant[:cut])):
        try:
            contents = container.parse(version)
        except NdtError:
            continue
        assert sum(len(d) for _, _, d in contents.tensors.values()) <= len(version)
