"""What an analysis says of a model that changed while it was trained, and of odd names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ndt_offline import Recorder, analyze
from ndt_offline.cli.analyze import command
from tests.conftest import small_model

QUICK: dict[str, Any] = {
    "metrics": ("stable_rank",), "detector": "zscore", "draws": 0, "phase_draws": 0, "phases": (),
    "report": False,
}  # fmt: skip


def recorded(run: Path, change: Callable[[nn.Sequential], object], **scalars: float) -> Path:
    """40 updates, the model changed after 20 of them."""
    torch.manual_seed(0)
    model, probe = small_model(), (torch.randn(32, 12), torch.randint(0, 4, (32,)))
    with Recorder(run, model, probe=probe) as record:
        for update in range(40):
            if update == 20:
                change(model)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.01)
            record(loss=1.0 / (update + 1), **scalars)
    return run


def wider(model: nn.Sequential) -> None:
    model[0], model[2] = nn.Linear(12, 10), nn.Linear(10, 4)


def test_a_model_that_changed_is_told_with_a_remedy_of_its_own(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", wider)
    result = analyze(run, **QUICK)
    assert [problem.step for problem in result.problems] == [25, 30, 35, 40]
    for problem in result.problems:
        assert "\n" not in problem.what and "[10, 12] in the checkpoint" in problem.what
        assert problem.remedy and "--model" in problem.remedy and "verify" not in problem.remedy
    done = CliRunner().invoke(command, [str(run), "--no-report"], standalone_mode=False)
    said = " ".join(done.output.split())
    assert "u000a" not in said and "ndt-offline verify" not in said
    assert said.count("[10, 12] in the checkpoint") == 1 and "(4 steps, 25 to 40)" in said
    assert said.count("try: ") == 1


def test_a_model_in_another_precision_is_told_how_to_be_measured(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", lambda model: model.double())
    result = analyze(run, **QUICK)
    assert [problem.step for problem in result.problems] == [25, 30, 35, 40]
    assert all(p.remedy == f"ndt-analyze {run} --upcast" for p in result.problems)


def test_layers_that_change_their_shape_are_a_note(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for width, start in ((8, 0), (10, 20)):
            model = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 4))
            with Recorder(tmp_path / "run", model, start_step=start) as record:
                for _ in range(20):
                    record(loss=1.0)
    (note,) = [n for n in analyze(tmp_path / "run", **QUICK).notes if "from step 20 on" in n]
    assert "0.weight" in note and "[8, 12]" in note and "[10, 12]" in note


def test_a_start_with_another_architecture_says_so(tmp_path: Path, capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for width, start in ((8, 0), (8, 20), (10, 40)):
            model = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 4))
            Recorder(tmp_path / "run", model, start_step=start).close()
            said = capsys.readouterr().err
            assert ("0.weight" in said and "[10, 12]" in said) == (width == 10)


@pytest.mark.parametrize("widths", [(8, 10), (10, 8)])
def test_the_shapes_of_hidden_checkpoints_do_not_count(
    tmp_path: Path, widths: tuple[int, int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for width in widths:
            model = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 4))
            with Recorder(tmp_path / "run", model) as record:
                for _ in range(20):
                    record(loss=1.0)
    result = analyze(tmp_path / "run", **QUICK)
    assert np.isfinite(result.results.spectra("weights")[:, :, 0]).all()
    assert not any("change their shape" in note for note in result.notes)


@pytest.mark.parametrize(
    ("name", "stored"),
    [("train/loss", "train.loss"), ("a b:c", "a.b.c"), ("größe", "gr.e"), ("2x", "journal_2x")],
)
def test_a_scalar_of_any_name_is_kept_under_a_readable_one(
    tmp_path: Path, name: str, stored: str
) -> None:
    run = recorded(tmp_path / "run", lambda model: None, **{name: 3.0})
    result = analyze(run, **QUICK)
    assert result.problems == []
    assert (result.results.signal(stored)[1:] == 3.0).all()
    assert any(repr(name) in note and repr(stored) in note for note in result.notes)


def test_two_scalars_do_not_fall_into_one(tmp_path: Path) -> None:
    given = {"a/b": 1.0, "a.b": 2.0, "a:b": 3.0}
    run = recorded(tmp_path / "run", lambda model: None, **given)
    results = analyze(run, **QUICK).results
    found = {
        float(np.nanmax(results.signal(name)))
        for name in results.root["signals"]
        if "a" in name and "b" in name and not name.startswith("probe")
    }
    assert found == {1.0, 2.0, 3.0}
    assert (results.signal("a.b")[1:] == 2.0).all()  # the name that may stay does
