"""Arrays made together: what Zarr's own call would have written, with all of their values."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from ndt_offline.store.arrays import WIDE, New, _together, put_arrays, put_series, read_arrays

VALUES: dict[str, Any] = {
    "float64": np.array([1.5, math.nan, -math.inf]),
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "int64": np.array([-(2**62), 0, 3]),
    "uint64": np.array([2**64 - 1, 0], np.uint64),
    "uint8": np.zeros((3, 0), np.uint8),
    "bool": np.array([True, False, True]),
    "str": np.array(["", "größer", "x" * 300], dtype=object),
    "scalar": np.float64(2.5),
    "none": np.zeros(0),
}


@pytest.fixture
def root(tmp_path: Path) -> zarr.Group:
    return zarr.open_group(tmp_path / "store", mode="w")


def written(root: zarr.Group, name: str) -> dict[str, Any]:
    path = Path(root.store_path.store.root) / name / "zarr.json"  # type: ignore[attr-defined]
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", VALUES)
def test_they_are_what_zarrs_own_call_makes(root: zarr.Group, name: str) -> None:
    values = np.asarray(VALUES[name])
    dims = ("step", "layer")[: values.ndim]
    about = {"long_name": "so", "units": "1"}
    put_arrays(root, {"a/ours": New.of(dims, values, **about)}, {"a": {"columns": ["ours"]}})
    kind: Any = str if values.dtype.kind == "O" else values.dtype
    root["a"].create_array(  # type: ignore[union-attr]
        "theirs",
        shape=values.shape,
        chunks=tuple(max(n, 1) for n in values.shape),
        dtype=kind,
        compressors=[ZstdCodec(level=1, checksum=True)],
        fill_value=math.nan if values.dtype.kind == "f" else "" if kind is str else 0,
        dimension_names=dims,
        attributes=about,
    )
    assert written(root, "a/ours") == written(root, "a/theirs")
    assert written(root, "a")["attributes"] == {"columns": ["ours"]}
    ours = zarr.open_group(root.store_path, mode="r")["a/ours"]
    np.testing.assert_array_equal(ours[...], values)  # type: ignore[index]


def test_many_are_read_back_together(root: zarr.Group) -> None:
    put_arrays(root, {name: New.of(("step", "x")[: np.ndim(v)], v) for name, v in VALUES.items()})
    found = read_arrays(dict(root.arrays()))
    assert found.keys() == VALUES.keys()
    for name, values in VALUES.items():
        np.testing.assert_array_equal(found[name], values)


def test_long_ones_lie_in_chunks(root: zarr.Group) -> None:
    values = np.arange(2 * WIDE + 3)
    put_arrays(root, {"long": New.of(("step",), values), "whole": New.of(("other",), values)})
    found: Any = root
    assert found["long"].chunks == (WIDE,) and found["whole"].chunks == values.shape
    assert (found["long"][:] == values).all()


def test_what_is_there_is_not_made_again(root: zarr.Group) -> None:
    put_arrays(root, {"a": New.of(("x",), [1.0])})
    with pytest.raises(zarr.errors.ContainsArrayError):
        put_arrays(root, {"a": New.of(("x",), [2.0])})
    assert root["a"][:].tolist() == [1.0]  # type: ignore[union-attr, index]


def test_a_series_is_written_anew_and_takes_another_shape(root: zarr.Group) -> None:
    found: Any = root
    for values in ([1.0, 2.0], [3.0, 4.0], [5.0], []):
        put_series(root, "s", ("step",), np.array(values), units=str(len(values)))
        assert found["s"][:].tolist() == values
        assert dict(found["s"].attrs) == {"units": str(len(values))}


def test_where_one_fails_the_others_come_to_their_end() -> None:
    ended: list[int] = []

    async def task(number: int) -> int:
        await asyncio.sleep(0.05 * number)
        ended.append(number)
        if number == 1:
            raise OSError("the disk is full")
        return number

    with pytest.raises(OSError, match="full"):
        _together([task(2), task(1), task(0)])
    assert ended == [0, 1, 2]
    assert _together([task(2), task(0)]) == [2, 0]
