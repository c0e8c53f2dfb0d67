"""Files that are written: never through a link, never over what is somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ndt_offline import analyze
from ndt_offline.errors import UsageError
from ndt_offline.execute.remarks import problems_of
from ndt_offline.pipeline import Result
from ndt_offline.report.export import export, write_netcdf
from ndt_offline.report.html import write_report
from ndt_offline.run.reader import open_run
from ndt_offline.store.whole_file import replacing

from .conftest import Made


def quick(path: Path, **options: object) -> Result:
    about = {"detector": "zscore", "draws": 1, "metrics": ("stable_rank",), "phase_draws": 0}
    return analyze(path, **{**about, **options})  # type: ignore[arg-type]


def test_links_in_place_of_drafts_are_not_followed(made: Made, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    for name in ("report.html.tmp", "events.csv.tmp", "columns.csv.tmp", "analysis.nc.tmp"):
        (tmp_path / name).symlink_to(victim)
    write_report(made, tmp_path / "report.html")
    export(made.results, tmp_path, "csv", ("events",))
    write_netcdf(made.results, tmp_path / "analysis.nc")
    assert victim.read_text() == "dear"
    assert not list(tmp_path.glob(".ndt-*"))


def test_a_file_replaced_follows_the_umask_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    path, before = tmp_path / "a", os.umask(0o027)
    try:
        with replacing(path) as draft:
            draft.write_text("new")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(OSError, match="full"), replacing(path) as draft:
        raise OSError("full")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and path.read_text() == "new"


def test_a_page_of_somebody_else_is_not_replaced(run_path: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.html"
    thesis.write_text("<html>years of work</html>")
    result = quick(run_path, out=tmp_path / "thesis.zarr")
    assert thesis.read_text() == "<html>years of work</html>"
    assert result.report == tmp_path / "thesis.zarr.html"
    (tmp_path / "other.zarr.html").write_text("mine")
    with pytest.raises(UsageError, match="not a report"):
        quick(run_path, out=tmp_path / "other.zarr")
    assert (tmp_path / "other.zarr.html").read_text() == "mine"
    assert not (tmp_path / "other.zarr").exists(), "refused before any work"


def test_names_with_dots_have_reports_of_their_own_and_ours_is_replaced(
    made: Made, run_path: Path, tmp_path: Path
) -> None:
    pages = [quick(run_path, out=tmp_path / f"seed.{n}").report for n in (1, 2)]
    assert [p.name for p in pages if p] == ["seed.1.html", "seed.2.html"]
    quick(run_path, out=tmp_path / "seed.1")


@pytest.mark.parametrize(
    ("stored", "path", "what"),
    [
        ("{path}: ValueError: expected x: got y", "{path}", "ValueError: expected x: got y"),
        ("/else: where/base: is short", "{run}", "/else: where/base: is short"),
    ],
)
def test_a_problem_keeps_its_whole_text(run_path: Path, stored: str, path: str, what: str) -> None:
    run = open_run(run_path)
    names = {"path": run.entries[3].path, "run": run.path}

    class Store:
        attrs = {"setup": {"problems": []}}  # noqa: RUF012

        def unusable(self) -> list[tuple[int, str]]:
            return [(run.entries[3].step, stored.format(**names))]

    (found,) = problems_of(run, Store())  # type: ignore[arg-type]
    assert (found.path, found.what) == (path.format(**names), what)
