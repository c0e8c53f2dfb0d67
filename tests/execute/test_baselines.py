"""Baselines on the command line: healthy runs kept, another one compared."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ndt_offline import analyze
from ndt_offline.cli import analyze as analyze_command
from ndt_offline.cli import main
from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.execute.baselines import baseline_path, load_baseline


def train(folder: Path, seed: int, broken: bool = False) -> Path:
    """A weight that grows along one direction; broken: it collapses to rank one after step 150."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    weight, push = rng.standard_normal((8, 6)), np.zeros((8, 6))
    push[0] = 0.05
    for step in range(0, 300, 10):
        weight = weight + push + 0.05 * rng.standard_normal(weight.shape)
        shown = weight.copy()
        if broken and step > 150:
            u, s, vt = np.linalg.svd(shown)
            shown = (u[:, :6] * (s * np.array([1, *[1e-3] * 5]))) @ vt
        save_file({"w": shown.astype("f4")}, folder / f"step_{step}.safetensors")
    analyze(folder, draws=1, report=False, phases=())
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *line: str) -> int:
    monkeypatch.setattr(sys, "argv", list(line))
    with pytest.raises(SystemExit) as stopped:
        {"ndt-analyze": analyze_command.main, "ndt-offline": main.main}[line[0]]()
    return int(stopped.value.code or 0)


def test_from_healthy_runs_to_an_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NDT_BASELINES", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    runs = [train(tmp_path / f"healthy{k}", k).name for k in range(6)]
    assert call(monkeypatch, "ndt-offline", "baseline", "add", "small", *runs[:4]) == 0
    assert call(monkeypatch, "ndt-offline", "baseline", "add", "small", *runs[4:]) == 0
    assert "6 runs" in (said := capsys.readouterr().out) and "at most 1 in 7" in said
    assert call(monkeypatch, "ndt-offline", "baseline", "add", "small", runs[0]) == 2
    assert call(monkeypatch, "ndt-offline", "baseline", "list") == 0
    assert "small: 6 runs" in capsys.readouterr().out
    bad = train(tmp_path / "bad", 99, broken=True)
    quick = {"draws": 1, "report": False, "phases": ()}
    result = analyze(bad, baseline="small", **quick)  # type: ignore[arg-type]
    assert result.exit_code == 4 and "leaves the band of 6 healthy runs" in result.alerts[0]
    # Single points can lie outside by chance before; the furthest series do so from there on.
    assert "from step 160" in result.notes[result.notes.index(result.alerts[0]) + 1]
    line = ["ndt-analyze", "bad", "--baseline", "small", "--draws", "1", "--no-report"]
    assert call(monkeypatch, *line) == 4
    # One more of the same kind: by the stated rate it may leave the band, here it does not.
    good = train(tmp_path / "good", 7)
    fine = analyze(good, baseline="small", **quick)  # type: ignore[arg-type]
    assert fine.exit_code == 0 and "within the band of 6 healthy runs" in fine.notes[-1]


def test_names_and_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDT_BASELINES", str(tmp_path))
    for name in ("../x", "", "a/b", "-x", "x" * 99):
        with pytest.raises(UsageError):
            baseline_path(name)
    with pytest.raises(UsageError, match="there is no baseline"):
        load_baseline("none")
    for data in (b"", b"garbage", b"PK\x03\x04"):
        (tmp_path / "odd.npz").write_bytes(data)
        with pytest.raises(DamagedError):
            load_baseline("odd")
    np.savez(tmp_path / "odd.npz", about=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DamagedError):
        load_baseline("odd")
