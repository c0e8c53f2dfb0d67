"""The commands on a store whose content is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ndt_offline.cli.main import command
from ndt_offline.report.html import page_of

from .conftest import Made


def call(*args: object) -> Result:
    done = CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A run's directory with its analysis."""
    shutil.copytree(made.store, tmp_path / "ckpts" / "analysis.zarr")
    return tmp_path / "ckpts"


def test_export_names_what_it_wrote(run: Path, tmp_path: Path) -> None:
    done = call("export", run, "--out", tmp_path / "out", "--table", "events")
    assert done.output.split() == [str(tmp_path / "out" / n) for n in ("events.csv", "columns.csv")]
    assert "activations/fc1/stable_rank" in (tmp_path / "out" / "events.csv").read_text()


def test_figures_are_written(run: Path, tmp_path: Path) -> None:
    paths = call("figures", run, "--out", tmp_path / "f", "--format", "pdf").output.split()
    assert len(paths) >= 9 and all(Path(p).read_bytes().startswith(b"%PDF") for p in paths)


def test_compare_as_table_and_json(run: Path, tmp_path: Path) -> None:
    text = call("compare", run, run, "--figure", tmp_path / "c.svg").output
    assert max(map(len, text.splitlines())) <= 100 + len(str(tmp_path))
    assert "ckpts (2)" in text and (tmp_path / "c.svg").read_text().startswith("<?xml")
    document = json.loads(call("compare", run, run, "--json").output)
    assert len(document["rows"]) == 8 and document["over_runs"][0]["runs"] == 2
    assert document["pooled"] == []


def test_sampling_is_stored_and_shown_by_the_next_report(run: Path) -> None:
    done = call("sampling", run, "--every", 5, "--every", 50, "--every", 500, "--draws", 1)
    assert "too few points are left to tell" in done.output
    page = page_of(Made(str(run), run / "analysis.zarr", []))
    assert "jumps by sampling interval</figcaption>" in page


def test_a_run_without_an_analysis_is_told_what_to_do(tmp_path: Path) -> None:
    from ndt_offline.errors import UsageError

    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(command, ["export", str(tmp_path)], catch_exceptions=False)
    assert f"ndt-analyze {tmp_path}" in str(caught.value)
