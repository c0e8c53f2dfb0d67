"""The store opens with xarray as it is, with coordinates, and says what its arrays are."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from ndt_offline import analyze
from ndt_offline.store.results import Results
from ndt_offline.store.tables import json_of

xarray = pytest.importorskip("xarray")


@pytest.fixture
def store(run_path: Path) -> Path:
    return analyze(run_path, detector="zscore", draws=1).store


def test_open_datatree_shows_the_store_with_coordinates(store: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xarray.open_datatree(store, engine="zarr")
    for space, layers in (("activations", ["0", "2"]), ("weights", ["0.weight", "2.weight"])):
        data = tree[space]
        assert data["singular_values"].dims == ("step", "layer", "component")
        assert data["layer"].values.tolist() == layers
        assert data["step"].values.tolist() == list(range(0, 401, 5))
        assert data["component"].values.tolist() == list(range(8))
        assert data["stable_rank"].dims == ("step", "layer")
    one = tree["activations/singular_values"].sel(step=200, layer="2").values
    assert np.isfinite(one[:4]).all() and np.isnan(one[4:]).all()
    assert tree["signals/probe"].sel(quantity="loss").dims == ("step",)
    assert tree["signals/loss"].dims == ("step",)
    status = tree["weights/status"]
    meanings = dict(
        zip(status.attrs["flag_meanings"].split(), status.attrs["flag_values"], strict=True)
    )
    assert (status.values == meanings["ok"]).all()


def test_every_chunk_carries_a_checksum(store: Path) -> None:
    root = zarr.open_group(store, mode="r")
    arrays = [array for _, array in root.members(max_depth=None) if isinstance(array, zarr.Array)]
    assert len(arrays) > 20
    for array in arrays:
        assert array.metadata.dimension_names is not None, array.path
        assert all(codec.checksum for codec in array.compressors), array.path
        if array.dtype.kind == "f":
            assert np.isnan(array.fill_value), array.path


def test_a_flipped_bit_in_the_store_is_an_error_not_a_number(store: Path) -> None:
    chunk = store / "weights/singular_values/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|decompress"):
        Results(store).spectra("weights")


def test_attributes_are_plain_json() -> None:
    made = json_of({"a": np.float64(1.5), "b": np.arange(2), "c": float("nan"), "d": float("inf")})
    assert made == {"a": 1.5, "b": [0, 1], "c": "nan", "d": "Infinity"}
