"""The codec: every bit comes back, by what the file says, and a wrong base never passes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Shuffle, Zstd

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.run import codec, container, entropy, integers, prediction
from ndt_offline.run.layout import ITEMSIZE, Layout

FLOATS = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "complex64")


def tensors_of(data: dict[str, tuple[str, np.ndarray]]) -> dict:
    return {
        n: (d, (len(a) // ITEMSIZE[d],), a.view(np.uint8).tobytes()) for n, (d, a) in data.items()
    }


def walk(dtype: str, count: int, steps: int, seed: int) -> list[np.ndarray]:
    """Bytes of a slowly moving vector: random bits at first, then small changes of the bits."""
    rng = np.random.default_rng(seed)
    width = integers.width(dtype)
    bits = rng.integers(0, 256, count * ITEMSIZE[dtype], np.uint8).view(f"u{width}")
    out = []
    for _ in range(steps):
        out.append(bits.view(np.uint8).copy())
        bits = bits + rng.integers(0, 3, len(bits)).astype(bits.dtype)
    return out


def raw(tensors: dict) -> dict[str, bytes]:
    return {name: bytes(data) for name, (_, _, data) in tensors.items()}


@pytest.mark.parametrize("dtype", sorted(ITEMSIZE))
@pytest.mark.parametrize("count", [0, 1, 7, 3000])
def test_every_dtype_comes_back_bit_for_bit(dtype: str, count: int) -> None:
    files = [tensors_of({"w": (dtype, v)}) for v in walk(dtype, count, 4, seed=count)]
    for at, now in enumerate(files):
        before = files[:at][::-1]
        assert raw(codec.decode(codec.encode(now, before), before)) == raw(now)


@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values_come_back(dtype: str) -> None:
    width = integers.width(dtype)
    top = 1 << (8 * width - 1)
    special = [0, top, top - 1, 2 * top - 1, 1, top + 1, top // 2, top - 2, top | (top // 2)]
    rng = np.random.default_rng(1)
    files = [
        tensors_of({"w": (dtype, rng.permutation(np.array(special * 8, f"u{width}")).view("u1"))})
        for _ in range(3)
    ]
    for before in ([], files[1:2], files[1:3]):
        assert raw(codec.decode(codec.encode(files[0], before), before)) == raw(files[0])


@given(st.binary(min_size=12, max_size=400), st.sampled_from(["float32", "int64", "bfloat16"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_on_any_base(data: bytes, dtype: str) -> None:
    size = len(data) // (3 * ITEMSIZE[dtype]) * ITEMSIZE[dtype]
    parts = [np.frombuffer(data, np.uint8)[i * size : (i + 1) * size].copy() for i in range(3)]
    bits = [p.view(f"u{ITEMSIZE[dtype]}") for p in parts]
    left = prediction.residuals(parts[0], parts[1:], dtype)
    plain = prediction.residuals(parts[0], parts[1:], dtype, signed=True)
    # The formula, in Python's unbounded integers reduced modulo 2^n at the end.
    n = 8 * ITEMSIZE[dtype]

    def signed(x: int) -> int:
        return (x + (1 << (n - 1))) % (1 << n) - (1 << (n - 1))

    def order(x: int) -> int:
        x = signed(x)
        return x ^ ((1 << (n - 1)) - 1) if x < 0 and dtype != "int64" else x

    for k in range(len(bits[0])):
        o, o1, o2 = (order(int(b[k])) for b in bits)
        d = signed(o - (o1 + (signed(o1 - o2) >> 1)))
        assert int(left[k]) == (2 * d if d >= 0 else -2 * d - 1)
        assert int(plain[k]) == d
    assert bytes(prediction.restore(left, parts[1:], dtype)) == bytes(parts[0])
    assert bytes(prediction.restore(plain, parts[1:], dtype)) == bytes(parts[0])


def test_unsigned_residuals_of_the_first_version_are_read() -> None:
    vectors = walk("float32", 500, 3, seed=4)[::-1]
    left = prediction.residuals(vectors[0], vectors[1:], "float32")
    layout = Layout.of({"w": ("float32", (500,))}, {})
    before = [{"float32": v} for v in vectors[1:]]
    for chain, values in (
        (["linear", "pco"], left),
        (
            ["linear", "sorted", "pco"],
            left[entropy.by_class(prediction.expect(vectors[1:], "float32")[1])],
        ),
    ):
        coded = np.frombuffer(entropy.pco_encode(values), np.uint8)
        tensors = {"float32": ("uint8", (len(coded),), coded)}
        contents = container.Contents({"codec": json.dumps({"float32": chain})}, tensors)
        assert codec.decode_vectors(contents, layout, before)["float32"].tobytes() == (
            vectors[0].tobytes()
        )


def test_ordered_integers_are_monotone() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=1000).astype(np.float32))
    zero = np.zeros(1000, np.float32).view(np.uint8)
    left = prediction.residuals(values.view(np.uint8), [zero], "float32").astype(np.int64)
    ordered = np.where(left % 2, -(left + 1) // 2, left // 2)
    assert (np.diff(ordered) >= 0).all()


def drifting(fastest: float) -> list[np.ndarray]:
    """Four checkpoints of float32 whose elements drift at rates of their own, to a thousandth."""
    rng = np.random.default_rng(3)
    scale = fastest * 10 ** rng.uniform(-3, 0, 40_000)
    values = [rng.normal(size=40_000)]
    drift = rng.normal(size=40_000) * scale
    for _ in range(3):
        values.append(values[-1] + drift + 0.2 * scale * rng.normal(size=40_000))
    return [v.astype(np.float32) for v in values]


def test_elements_of_two_bytes_are_sorted_by_default() -> None:
    bits = [v.view(np.uint32) >> 16 for v in drifting(0.1)]  # bfloat16, rounded towards zero
    vectors = [{"bfloat16": b.astype(np.uint16).view(np.uint8)} for b in bits]
    layout = Layout.of({"w": ("bfloat16", (40_000,))}, {})
    before = vectors[2:0:-1]
    data = codec.encode_vectors(layout, vectors[3], before, {})
    assert codec.encode_vectors(layout, vectors[3], before, {}, small=True) == data
    bases = [v["bfloat16"] for v in before]
    left = prediction.residuals(vectors[3]["bfloat16"], bases, "bfloat16", signed=True)
    assert len(data) < 0.9 * len(entropy.pco_encode(left))
    found = codec.decode_vectors(container.parse(data), layout, before)
    assert (found["bfloat16"] == vectors[3]["bfloat16"]).all()


def test_what_does_not_change_takes_no_room() -> None:
    vector = np.random.default_rng(0).integers(0, 2**16, 2**18).astype(np.uint16).view(np.uint8)
    layout = Layout.of({"w": ("bfloat16", (2**18,))}, {})
    before = [{"bfloat16": vector}] * 2
    assert len(codec.encode_vectors(layout, {"bfloat16": vector.copy()}, before, {})) < 500


def test_small_coding_is_smaller_and_equal() -> None:
    vectors = [{"float32": v.view(np.uint8)} for v in drifting(1e-3)]
    layout = Layout.of({"w": ("float32", (40_000,))}, {})
    before = vectors[2:0:-1]
    plain = codec.encode_vectors(layout, vectors[3], before, {})
    small = codec.encode_vectors(layout, vectors[3], before, {}, small=True)
    assert len(small) < 0.95 * len(plain)
    for data in (plain, small):
        found = codec.decode_vectors(container.parse(data), layout, before)
        assert (found["float32"] == vectors[3]["float32"]).all()


def test_a_tensor_set_that_changes_needs_no_base_where_nothing_fits() -> None:
    first = tensors_of({"a": ("float32", walk("float32", 64, 1, 0)[0])})
    added = first | tensors_of({"b": ("float32", walk("float32", 8, 1, 1)[0])})
    other = added | tensors_of({"n": ("int64", walk("int64", 1, 1, 2)[0])})
    for now, before in ((added, [first]), (other, [added, first]), (first, [other])):
        assert raw(codec.decode(codec.encode(now, before), before)) == raw(now)


def test_shapes_and_names_come_back() -> None:
    given_ = {"s": ("float32", (), b"\0\0\x80?"), "z": ("float32", (0, 3), b"")}
    found = codec.decode(codec.encode(given_))
    assert {n: (d, s, bytes(b)) for n, (d, s, b) in found.items()} == given_


def test_a_missing_base_is_an_error() -> None:
    files = [tensors_of({"w": ("float32", v)}) for v in walk("float32", 500, 3, seed=0)]
    data = codec.encode(files[2], files[1::-1])
    for wrong in ([], [files[1]], [tensors_of({"w": ("float32", walk("float32", 9, 1, 0)[0])})]):
        with pytest.raises(DamagedError):
            codec.decode(data, wrong)


def test_files_of_the_first_version_stay_readable() -> None:
    for dtype in ("float32", "complex64", "uint8"):
        vector = walk(dtype, 300, 1, seed=5)[0]
        layout = Layout.of({"w": (dtype, (300,))}, {})
        coded = Zstd(level=1, checksum=True).encode(Shuffle(ITEMSIZE[dtype]).encode(vector))
        chains = {dtype: ["shuffle", "zstd"]}
        meta = {"codec": json.dumps(chains), "tensors": layout.to_json()}
        head = container.header([(dtype, "uint8", (len(coded),))], meta)
        assert bytes(codec.decode(head + bytes(coded))["w"][2]) == vector.tobytes()


def test_an_unknown_chain_is_refused() -> None:
    data = codec.encode(tensors_of({"w": ("float32", np.zeros(2000, np.uint8))}))
    head = int.from_bytes(data[:8], "little")
    other = data[: 8 + head].replace(b"pco", b"pcx") + data[8 + head :]
    with pytest.raises(RefusedError, match="not known"):
        codec.decode(other)


def test_coded_bytes_that_were_changed_are_errors_or_other_content() -> None:
    values = walk("float32", 4000, 1, 0)[0].view(np.uint32) >> 20
    coded = np.frombuffer(entropy.pco_encode(values.astype(np.uint32)), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(400):
        other = coded.copy()
        other[rng.integers(0, min(len(other), 200), 3)] = rng.integers(0, 256, 3)
        if rng.random() < 0.3:
            other = other[: rng.integers(0, len(other))]
        try:
            found = entropy.pco_decode(other, "u4", len(values))
        except NdtError:
            continue
        assert found.shape == values.shape


def test_the_codec_loads_no_torch() -> None:
    code = (
        "import sys, ndt_offline.run.codec, ndt_offline.run.reader; print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
