"""Exports and figures: the files say what the store says, and no name harms who opens them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ndt_offline.errors import UsageError
from ndt_offline.report.columns import COLUMNS
from ndt_offline.report.compare import compare_rows, names_of_runs, spread_rows
from ndt_offline.report.export import export, safe_cell
from ndt_offline.report.figures import plot_series
from ndt_offline.report.gallery import file_name, save_figures
from ndt_offline.report.runs import open_results

from .conftest import HOSTILE, Made, make_store


def test_csv_reads_back_as_the_store(made: Made, tmp_path: Path) -> None:
    paths = export(made.results, tmp_path / "tables", "csv")
    assert {p.name for p in paths} == {*(f"{name}.csv" for name in COLUMNS), "columns.csv"}
    with (tmp_path / "tables" / "series.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    mine = [r for r in rows if r["layer"] == "fc1" and r["space"] == "activations"]
    assert [int(r["step"]) for r in mine] == made.results.steps.tolist()
    values = np.array([float(r["value"]) for r in mine])
    assert np.array_equal(values, made.results.series("activations", "fc1", "stable_rank"))


def test_no_cell_is_a_formula(hostile: Made, tmp_path: Path) -> None:
    for path in export(hostile.results, tmp_path, "csv"):
        with path.open(newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    number = cell.lstrip("+-").replace(".", "").replace("e-", "").isdigit()
                    assert number or not cell.startswith(("=", "+", "-", "@", "\t")), cell
                    assert "\u202e" not in cell and "\x1b" not in cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "\uff1d1"])
def test_formulas_are_quoted(text: str) -> None:
    assert safe_cell(text).startswith(("'", "\\u"))


def test_plain_cells_are_left_alone() -> None:
    assert [safe_cell(v) for v in ("fc1.weight", -1.5, 7)] == ["fc1.weight", -1.5, 7]


def test_json_is_strict_and_explained(made: Made, tmp_path: Path) -> None:
    (path,) = export(made.results, tmp_path, "json", ["transitions"])
    document = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert [row["step"] for row in document["rows"]] == [1000]
    assert set(document["columns"]) == set(COLUMNS["transitions"])


def test_netcdf_opens_in_xarray(made: Made, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    (path,) = export(made.results, tmp_path, "netcdf")
    with xarray.open_dataset(path) as data:
        found = data["activations_stable_rank"].sel(activations_layer="fc2").values
    assert np.array_equal(found, made.results.series("activations", "fc2", "stable_rank"))


def test_unknown_names_are_usage_errors(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export(made.results, tmp_path, "xlsx")
    with pytest.raises(UsageError):
        export(made.results, tmp_path, "csv", ["nothing"])
    with pytest.raises(UsageError):
        open_results(tmp_path)
    with pytest.raises(UsageError):
        plot_series(made.results, "fc9")


def test_plot_series_shows_the_series_and_its_jump(made: Made) -> None:
    axes = plot_series(made.store, "fc1")
    lines = {tuple(np.ravel(line.get_xdata()).tolist()): line for line in axes.lines}
    drawn = lines[tuple(made.results.steps.tolist())].get_ydata()
    assert np.array_equal(drawn, made.results.series("activations", "fc1", "stable_rank"))
    marks = [line for line in axes.lines if line.get_marker() == "^"]
    assert [float(np.ravel(line.get_xdata())[0]) for line in marks] == [1000.0]
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()


def test_figures_of_a_hostile_run_stay_in_their_folder(hostile: Made, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    paths = save_figures(hostile.results, folder, ["svg"])
    assert len(paths) == len(set(paths)) == len(list(folder.iterdir()))
    assert all(p.parent == folder for p in paths)
    text = "".join(p.read_text() for p in paths)
    assert "<script" not in text
    assert "\u202e" not in text
    assert "&lt;script" in text and "$x" not in file_name(HOSTILE)


def test_file_names_are_safe() -> None:
    assert file_name("a/../b c\x00") == "a-..-b-c"
    assert file_name(HOSTILE).isascii() and "/" not in file_name(HOSTILE)
    assert file_name("\u202e") == "figure"


def test_compare_puts_runs_side_by_side(made: Made, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other" / "analysis.zarr", rows=120, jump=None, seed=3)
    rows = compare_rows([made.results, other.results, made.results])
    assert len(rows) == 12
    assert names_of_runs([made.results, made.results])[1].endswith(" (2)")
    mean = next(r for r in spread_rows(rows) if r["layer"] == "fc2")
    lasts = [r["last"] for r in rows if r["layer"] == "fc2" and r["space"] == "activations"]
    assert mean["runs"] == 3 and mean["last"] == pytest.approx(np.mean(lasts))
    assert mean["last_sd"] == pytest.approx(np.std(lasts, ddof=1))
