"""Whose a store is, and that what one driver says leaves what another said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.store import schema
from ndt_offline.store.growth import make_store
from ndt_offline.store.ownership import check_owner, take, undisturbed
from ndt_offline.store.results import Results


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "analysis.zarr"
    make_store(path, [], 64, {})
    return path


def test_what_is_said_leaves_what_another_said_meanwhile(store: Path) -> None:
    one, other = Results(store), Results(store)
    other.say(restarts=[5], newest={"phases": "x"})
    one.say(newest={"phases": "y"})
    expected = {"restarts": [5], "newest": {"phases": "y"}}
    for results in (one, Results(store)):
        assert {name: results.attrs[name] for name in expected} == expected


def test_who_was_overtaken_says_nothing_more(store: Path) -> None:
    early = Results(store, take(store))
    early.say(restarts=[1])
    late = take(store)
    before = (store / "zarr.json").read_bytes()
    for speak in (
        lambda: early.say(restarts=[2]),
        early.check_owner,
        lambda: schema.consolidate(store, "the earlier one"),
    ):
        with pytest.raises(NdtError, match="taken over"):
            speak()
    assert (store / "zarr.json").read_bytes() == before
    check_owner(store, late)


def test_consolidated_metadata_open_everything_and_keep_the_attributes(store: Path) -> None:
    token = take(store)
    schema.consolidate(store, token)
    document = json.loads((store / "zarr.json").read_bytes())
    assert document["attributes"]["writer"] == token
    assert "records/step" in document["consolidated_metadata"]["metadata"]
    schema.forget_consolidated(store)
    assert "consolidated_metadata" not in json.loads((store / "zarr.json").read_bytes())


def test_what_goes_wrong_after_a_takeover_is_told_as_that(store: Path) -> None:
    token = take(store)
    with pytest.raises(IndexError), undisturbed(store, token):
        raise IndexError("81 against 41")
    take(store)
    with pytest.raises(NdtError, match="taken over"), undisturbed(store, token):
        raise IndexError("81 against 41")
    with pytest.raises(UsageError, match="mistake"), undisturbed(store, token):
        raise UsageError("a mistake of the user's")
