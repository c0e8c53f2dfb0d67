"""Stores that are somebody else's, damaged, or laid out as a trap."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import zarr

from ndt_offline import analyze
from ndt_offline.errors import UsageError
from ndt_offline.pipeline import Result
from ndt_offline.store import schema
from ndt_offline.store.growth import discard, make_store


def quick(path: Path, **options: object) -> Result:
    about = {"detector": "zscore", "draws": 1, "metrics": ("stable_rank",), "phase_draws": 0}
    return analyze(path, **{**about, "report": False, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def _analysed(_recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analysed") / "ckpts"
    shutil.copytree(_recorded, path)
    quick(path)
    return path


@pytest.fixture
def analysed(_analysed: Path, tmp_path: Path) -> Path:
    """A run with its store, to be damaged."""
    return Path(shutil.copytree(_analysed, tmp_path / "ckpts"))


def test_a_link_in_place_of_the_lock_is_not_followed(run_path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    (run_path / "analysis.zarr.lock").symlink_to(victim)
    with pytest.raises(UsageError, match="is a link"):
        quick(run_path)
    assert victim.read_text() == "dear"


def test_a_link_at_the_old_name_of_a_draft_is_not_followed(analysed: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    (analysed / "analysis.zarr/zarr.json.tmp").symlink_to(victim)
    schema.forget_consolidated(analysed / "analysis.zarr")
    assert victim.read_text() == "dear"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"schema": 1, "block": 64}, "not a store"),
        ({"schema": "mine"}, "not a store"),
        ({"ndt_offline": "yes"}, "not a store"),
        ({"ndt_offline": 99}, "pip install --upgrade"),
    ],
)
def test_stores_of_others_and_newer_ones_are_left_alone(
    run_path: Path, tmp_path: Path, about: dict[str, object], said: str
) -> None:
    store = tmp_path / "theirs.zarr"
    zarr.create_group(store, attributes=about).create_array("x", shape=(3,), dtype="f8")
    with pytest.raises(UsageError) as caught:
        quick(run_path, out=store)
    assert said in str(caught.value)
    assert "x" in zarr.open_group(store, mode="r")


def test_a_backup_beside_a_store_stays(tmp_path: Path) -> None:
    store, backup = tmp_path / "a.zarr", tmp_path / "a.zarr.old"
    for path in (store, backup):
        path.mkdir()
        (path / "file").touch()
    discard(store)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr.old"]
    assert (backup / "file").exists()


def test_a_store_behind_a_link_is_made_where_it_points(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.zarr", tmp_path / "a.zarr"
    real.mkdir(parents=True)
    (real / "rest").touch()
    link.symlink_to(real)
    make_store(link, [], 64, {})
    assert link.is_symlink() and (real / "zarr.json").is_file()
    assert not (real / "rest").exists()
