"""What the Recorder says of probes that the analysis could not use, and what it does without."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded_training import make_model

from ndt_offline import Recorder, analyze
from ndt_offline.record import opening
from ndt_offline.run.probe import Probe, load_probe, make_probe, probe_bytes

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
Y = (X[:, 0] > 0).long()
QUICK: dict[str, Any] = {
    "metrics": ("stable_rank",), "detector": "zscore", "draws": 0, "phase_draws": 0, "phases": (),
    "report": False,
}  # fmt: skip


def said(run: Path, steps: int = 6, **options: Any) -> list[str]:
    """What the construction warned of; a few updates are recorded."""
    model = options.pop("model", None) or make_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = Recorder(run, model, every=1, **options)
    for _ in range(steps):
        record(loss=1.0)
    record.close()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ((X[:32], Y[:32]), ["float32[32, 16]", "float32[64, 16]", "rows as in probe (64)"]),
        ((X.double(), Y), ["float64[64, 16]", "float32[64, 16]"]),
        (({"a": X}, Y), ["x.a", "the first one x"]),
    ],
)
def test_a_second_probe_that_does_not_fit_is_said_and_left_out(
    tmp_path: Path, second: Any, told: list[str]
) -> None:
    warned = said(tmp_path / "run", probe=(X, Y), val_probe=second)
    assert len(warned) == 1 and all(word in warned[0] for word in told), warned
    kept = tmp_path / "run" / "probe.safetensors"
    assert load_probe(kept, "_val") is None
    result = analyze(tmp_path / "run", **QUICK)
    assert result.problems == []
    assert np.isfinite(result.results.signal("probe_loss")).all()


def test_a_run_that_kept_such_a_second_probe_is_analysed_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    said(run, probe=(X, Y))
    odd = probe_bytes(make_probe((X, Y)), Probe(X[:32], Y[:32]))
    (run / "probe.safetensors").write_bytes(odd)
    result = analyze(run, **QUICK)
    assert result.problems == []
    assert np.isfinite(result.results.signal("probe_loss")).all()
    assert np.isfinite(result.results.signal("probe_accuracy")).all()
    assert any("second probe was left out" in note and "32" in note for note in result.notes)
    said(run, probe=(X, Y), val_probe=(X[:32], Y[:32]), start_step=6)
    assert (run / "probe.safetensors").read_bytes() == odd


def test_labels_of_the_second_probe_do_not_cost_the_first_its_numbers(tmp_path: Path) -> None:
    warned = said(tmp_path / "run", probe=(X, Y), val_probe=(X, Y + 4))
    assert len(warned) == 1 and "labels do not fit" in warned[0]
    results = analyze(tmp_path / "run", **QUICK).results
    assert np.isfinite(results.signal("probe_loss")).all()
    assert np.isnan(results.signal("probe_loss_val")).all()


def test_a_second_probe_alone_is_not_dropped_silently(tmp_path: Path) -> None:
    warned = said(tmp_path / "run", val_probe=(X, Y))
    assert any("val_probe" in text and "probe=" in text for text in warned)


def regression(rows: int = 64, columns: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("loss", "labels", "columns", "word"),
    [
        ("cross_entropy", regression(), 1, "loss='mse'"),
        ("cross_entropy", regression()[:, 0], 1, "loss='mse'"),
        ("cross_entropy", regression()[:, 0], 4, "loss='mse'"),
        ("nll", regression(64, 3), 4, "loss='mse'"),
        ("cross_entropy", Y, 1, "bce_with_logits"),
        ("mse", regression(64, 2), 1, "output"),
        ("bce_with_logits", Y, 4, "output"),
    ],
)
def test_labels_that_are_no_classes_are_said(
    tmp_path: Path, loss: str, labels: torch.Tensor, columns: int, word: str
) -> None:
    model = torch.nn.Linear(16, columns)
    warned = said(tmp_path / "run", steps=1, model=model, probe=(X, labels), loss=loss)
    assert len(warned) == 1 and word in warned[0] and "do not fit" in warned[0], warned


@pytest.mark.parametrize(
    ("loss", "labels", "columns"),
    [
        ("cross_entropy", regression(64, 4).softmax(1), 4),  # shares of classes
        ("cross_entropy", Y, 4),
        ("mse", regression(), 1),
        ("mse", regression()[:, 0], 1),
        ("bce_with_logits", Y, 1),
        ("none", regression(), 3),
    ],
)
def test_labels_that_fit_are_not(
    tmp_path: Path, loss: str, labels: torch.Tensor, columns: int
) -> None:
    model = torch.nn.Linear(16, columns)
    run = tmp_path / "run"
    assert said(run, steps=1, model=model, probe=(X, labels), loss=loss) == []
    result = analyze(run, **QUICK)
    assert result.problems == []


@pytest.mark.parametrize("long", [False, True])
def test_a_model_that_takes_long_to_trace_is_not_traced_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, long: bool
) -> None:
    export_graph = opening.export_graph

    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.5 if long else 0.0)
        return export_graph(*given, **named)

    monkeypatch.setattr(opening, "export_graph", slow)
    monkeypatch.setattr(opening, "LONG", 0.05 if long else 60.0)
    threads = threading.active_count()
    Recorder(tmp_path / "run", make_model(), probe=(X, Y)).close()
    said = capsys.readouterr().err
    assert said.count("forward pass is being traced") == int(long)
    assert ("4 parameters" in said) == long and threading.active_count() <= threads
