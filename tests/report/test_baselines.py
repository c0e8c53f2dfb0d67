"""Baselines: kept by name and architecture, compared from the shell, hostile files refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder, analyze
from ndt_offline.cli import main
from ndt_offline.cli.analyze import main as analyze_main
from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.report import baselines
from ndt_offline.report.runs import open_results

QUICK = {"draws": 0, "phase_draws": 0, "report": False, "metrics": baselines.METRICS}


def train(path: Path, seed: int, rate: float = 1e-2, hidden: int = 8, updates: int = 150) -> Path:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 3))
    optimizer = torch.optim.Adam(model.parameters(), rate)
    x = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.randn(6, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
    with Recorder(path, model, probe=(x[:64], y[:64])) as record:
        for _ in range(updates):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(loss=loss)
    analyze(path, **QUICK)
    return path


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("healthy")
    return [train(folder / f"seed-{seed}", seed) for seed in range(6)]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NDT_BASELINES", str(tmp_path / "kept"))
    return tmp_path / "kept"


def command(monkeypatch: pytest.MonkeyPatch, program: object, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        program()  # type: ignore[operator]
    return int(stopped.value.code or 0)


def test_from_the_command_line(
    healthy: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, main.main, "baseline", "list") == 0
    assert "none in" in capsys.readouterr().out
    assert command(monkeypatch, main.main, "baseline", "add", "tiny", *healthy[:2]) == 0
    assert "needs 3 runs" in capsys.readouterr().err
    assert command(monkeypatch, main.main, "baseline", "add", "tiny", *healthy[1:5]) == 0
    said = capsys.readouterr().out
    assert "5 runs" in said and "17%" in said  # the second is not counted twice
    odd = train(tmp_path / "odd", 9, rate=1.0)
    words = [odd, "--baseline", "tiny", "--fail-on", "outside > 0", "--draws", 0]
    assert command(monkeypatch, analyze_main, *words) == 4
    told = capsys.readouterr().out
    assert "series leave the bands of 5 healthy runs" in told and "ALERT outside > 0" in told
    page = (odd / "report.html").read_text()
    assert "leave the bands of 5 healthy runs" in page and "activations/0/stable_rank" in page
    assert command(monkeypatch, analyze_main, *words[:3], "--json", "--no-report") == 0
    beside = json.loads(capsys.readouterr().out)["baseline"]
    assert beside["runs"] == 5 and beside["departures"][0]["step"] <= 20
    assert command(monkeypatch, main.main, "baseline", "remove", "tiny") == 0
    assert command(monkeypatch, analyze_main, *words[:3]) == 2
    assert "no baseline 'tiny'" in capsys.readouterr().err


def test_rows_are_those_of_the_band(healthy: list[Path], tmp_path: Path) -> None:
    (kept,) = baselines.add("tiny", [open_results(run) for run in healthy[:5]])
    assert kept.values.shape == (5, len(kept.series), 31)
    new = open_results(train(tmp_path / "odd", 9, rate=0.3))
    found = baselines.compare(kept, new)
    band = kept.band()
    at = kept.series.index("probe_loss")
    series = new.signal("probe_loss")
    away = (series < band.low[at]) | (series > band.high[at])
    (row,) = [row for row in found.departures if row["series"] == kept.series[at]]
    assert row["step"] == new.steps[away][0]
    assert row["share"] == pytest.approx(away.mean())
    assert found.rate == pytest.approx(1 / 6)


def test_a_run_without_its_series_is_told_to_derive_them(
    healthy: list[Path], tmp_path: Path
) -> None:
    baselines.add("tiny", [open_results(run) for run in healthy[:3]])
    question = QUICK | {"metrics": ("participation_ratio",), "out": tmp_path / "other.zarr"}
    with pytest.raises(UsageError, match="needs effective_rank, stable_rank") as caught:
        analyze(healthy[4], baseline="tiny", **question)
    assert "--metrics stable_rank --metrics effective_rank" in str(caught.value.remedy)
    lacking = open_results(tmp_path / "other.zarr")
    with pytest.raises(UsageError, match="needs effective_rank, stable_rank"):
        baselines.add("tiny", [lacking])


def test_architectures_are_kept_apart(healthy: list[Path], tmp_path: Path) -> None:
    wide = [train(tmp_path / f"wide-{seed}", seed, hidden=12) for seed in range(3)]
    changed = baselines.add("both", [open_results(r) for r in (*healthy[:3], *wide)])
    assert len(changed) == len(baselines.read_all("both")) == 2
    assert baselines.find("both", open_results(wide[0])).runs == changed[1].runs
    other = train(tmp_path / "other", 0, hidden=5)
    with pytest.raises(UsageError, match="no run with these layers"):
        analyze(other, baseline="both", **QUICK)


def test_steps_in_common(healthy: list[Path], tmp_path: Path) -> None:
    short = train(tmp_path / "short", 8, updates=100)
    (kept,) = baselines.add("tiny", [open_results(r) for r in (*healthy[:3], short)])
    assert kept.steps[-1] == 100
    early = train(tmp_path / "early", 8, updates=20)
    with pytest.raises(UsageError, match="5 steps in common"):
        baselines.add("tiny", [open_results(early)])
    # A run that has only begun is compared as far as it goes.
    assert baselines.compare(kept, open_results(early)).steps == 5


def test_files_of_others_are_refused(healthy: list[Path], kept: Path) -> None:
    baselines.add("tiny", [open_results(run) for run in healthy[:3]])
    (path,) = (kept / "tiny").glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match="is no baseline"):
        baselines.read_all("tiny")
    path.write_bytes(whole[:300] + bytes(200) + whole[500:])
    with pytest.raises(DamagedError, match="is no baseline"):
        baselines.read_all("tiny")
    np.savez(path, about=np.array(["x"], dtype=object), allow_pickle=True)
    with pytest.raises(DamagedError, match="is no baseline"):
        baselines.read_all("tiny")
    for name in ("../tiny", "", "a/b", ".hidden", "x" * 200):
        with pytest.raises(UsageError, match="no name for a baseline"):
            baselines.read_all(name)
    shutil.rmtree(kept)
