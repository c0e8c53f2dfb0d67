"""What is loaded: help and a new threshold stay light, matplotlib only where a figure is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ndt_offline import analyze

HEAVY = ("torch", "dask", "distributed", "scipy", "matplotlib", "zarr")


def loaded(code: str, *args: str) -> set[str]:
    check = f"import sys; {code}; sys.stderr.write(' '.join({HEAVY!r} & sys.modules.keys()))"
    check = check.replace(repr(HEAVY), repr(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", check, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    ask = "from ndt_offline.cli.{0} import command; command(['--help'], standalone_mode=False)"
    for name in ("analyze", "main", "export", "figures", "compare", "sampling", "validate"):
        assert loaded(ask.format(name)) == set(), name


def test_a_new_threshold_with_its_report_loads_no_torch_and_no_matplotlib(run_path: Path) -> None:
    quick = "detector='zscore', draws=1, phase_draws=0, metrics=('stable_rank',)"
    analyze(run_path, detector="zscore", draws=1, phase_draws=0, metrics=("stable_rank",))
    again = f"from ndt_offline import analyze; r = analyze(sys.argv[1], threshold=4.0, {quick})"
    found = loaded(again + "; assert r.replayed == 0 and r.report.is_file()", str(run_path))
    assert not found & {"torch", "dask", "distributed", "matplotlib"}


def test_report_and_alerts_follow_the_options(run_path: Path) -> None:
    quick = {"detector": "zscore", "draws": 1, "phase_draws": 0, "metrics": ("stable_rank",)}
    result = analyze(run_path, report=False, **quick)
    assert result.report is None and not (run_path / "report.html").exists()
    result = analyze(run_path, fail_on=["stable_rank(0) > 0"], **quick)
    assert result.exit_code == 4 and len(result.alerts) == 1
    assert result.report == run_path / "report.html" and result.report.is_file()
    other = analyze(run_path, out=run_path / "again.zarr", **quick)
    assert other.report == run_path / "again.zarr.html" and other.exit_code == 0
