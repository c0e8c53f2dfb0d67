from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from execute_runs import record_run, replay


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 checkpoints, steps 0, 5, ..., 1495; not to be changed."""
    return record_run(tmp_path_factory.mktemp("recorded") / "run", updates=1495)


@pytest.fixture(scope="session")
def whole(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted replay of `recorded`."""
    store = tmp_path_factory.mktemp("whole") / "analysis.zarr"
    replay(recorded, store)
    return store


@pytest.fixture
def run_copy(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run"))
