"""The compiled restoring of float32: the same bits as without it, or not used."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndt_offline.run import codec, container, prediction
from ndt_offline.run.layout import Layout

pytest.importorskip("numba")
EXTREMES = np.array([0, -1, 1, 2**31 - 1, -(2**31), -(2**31) + 1, 0x7F800000, 0x7FC00001], np.int32)


@pytest.fixture(scope="module", autouse=True)
def fused():  # type: ignore[no-untyped-def]
    prediction.fuse()
    assert prediction._fused is not None
    yield prediction._fused
    prediction._fused = None


def both(residual: np.ndarray, newer: np.ndarray, older: np.ndarray) -> list[bytes]:
    """By numpy, and by the compiled code."""
    used, found = prediction._fused, []
    for now in (None, used):
        prediction._fused = now
        vectors = [newer.copy().view(np.uint8), older.copy().view(np.uint8)]
        found.append(bytes(prediction.restore(residual.copy(), vectors, "float32")))
    return found


def test_every_extreme_with_every_other() -> None:
    residual, newer, older = (np.ravel(grid) for grid in np.meshgrid(*[EXTREMES] * 3))
    plain, fused = both(residual, newer, older)
    assert plain == fused


@given(st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_all_bit_patterns(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(-(2**31), 2**31, (3, count)).astype(np.int32)
    plain, fused = both(*bits)
    assert plain == fused


def test_files_are_decoded_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(3, 5000)), axis=0, dtype=np.float32)
    values[:, 0] = np.nan, np.inf, -np.nan
    vectors = [{"float32": v.view(np.uint8)} for v in values]
    layout = Layout.of({"w": ("float32", (5000,))}, {})
    data = codec.encode_vectors(layout, vectors[2], vectors[1::-1], {})
    calls, fused = [], prediction._fused
    monkeypatch.setattr(prediction, "_fused", lambda *given: (calls.append(1), fused(*given)))
    found = codec.decode_vectors(container.parse(data), layout, vectors[1::-1])
    assert calls and found["float32"].tobytes() == vectors[2]["float32"].tobytes()


def test_one_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from ndt_offline.run import fused

    monkeypatch.setattr(prediction, "_fused", None)
    monkeypatch.setattr(fused, "restore", lambda residual, *_: residual.fill(0))
    prediction.fuse()
    assert prediction._fused is None


def test_without_numba_nothing_changes() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from ndt_offline.run import prediction; prediction.fuse(); print(prediction._fused)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "None\n"
