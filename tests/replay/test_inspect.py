"""`ndt-offline inspect`: what it says is what the analysis does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from ndt_offline import Recorder
from ndt_offline.cli.inspect import command
from ndt_offline.errors import UsageError
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.run.reader import open_run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(3 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def ckpts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "ckpts"
    torch.manual_seed(0)
    model = Net()
    x, y = torch.randn(4, 1, 6, 6), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(path, model, probe=(x, y), every=1) as record:
        for _ in range(7):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(loss=loss)
    return path


def told(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def files(folder: Path) -> set[str]:
    return {os.path.join(at, name) for at, _, names in os.walk(folder) for name in names}


def test_layers_shapes_and_cost(ckpts: Path) -> None:
    before = files(ckpts)
    text = told(ckpts)
    assert files(ckpts) == before, "inspect writes nothing"
    lines = [line.split() for line in text.splitlines()]
    assert ["conv", "[4", "x", "48]"] in [line[:4] for line in lines]
    assert ["fc.weight", "[5", "x", "48]"] in [line[:4] for line in lines]
    assert "8 checkpoints, steps 0 to 7" in text and "journal: loss" in text
    assert "memory: about" in text and "ms per checkpoint, measured" in text


def test_shares_of_the_cost_add_up(ckpts: Path) -> None:
    lines = told(ckpts, "--no-trial").splitlines()
    shares = [int(line.split()[-2]) for line in lines if line.endswith(" %")]
    assert len(shares) == 4 and abs(sum(shares) - 100) <= 2


def test_options_of_the_analysis(ckpts: Path) -> None:
    text = told(ckpts, "--layers", "conv", "--layers", "fc", "--as", "conv=channels", "--no-trial")
    assert "conv  [64 x 3]" in text and "channels" in text and "weights: 0 layers" in text
    assert "measured" not in text


def test_what_is_not_measured_and_why(ckpts: Path) -> None:
    text = told(ckpts, "--max-side", 3, "--no-trial")
    assert "not measured: 3" in text and "fc.weight: its smaller side, 5, exceeds 3" in text


def test_a_rule_beside_several_layers(ckpts: Path) -> None:
    """A rule for one glob is no mistake of the other glob, which it does not match."""
    chosen = Parameters(layers=("conv", "fc"), shapes=(("conv", "channels"),))
    setup = prepare(open_run(ckpts), chosen)
    assert [(x.name, x.rule) for x in setup.activations] == [("conv", "channels"), ("fc", "rows")]
    with pytest.raises(UsageError, match="no chosen layer matches 'cnov'"):
        prepare(open_run(ckpts), Parameters(shapes=(("cnov", "channels"),)))


def test_a_folder_of_others_without_probe_then_with(tmp_path: Path) -> None:
    model = nn.Linear(6, 4)
    for step in (10, 20):
        save_file(model.state_dict(), tmp_path / f"model-{step}.safetensors")
    text = told(tmp_path)
    assert "no probe: weights only" in text and "weight  [4 x 6]" in text
    save_file({"x": torch.randn(5, 6), "y": torch.arange(5) % 4}, tmp_path / "probe.st")
    text = told(tmp_path, "--probe", tmp_path / "probe.st")
    assert "no forward graph: weights only; --model" in text
    text = told(
        tmp_path, "--probe", tmp_path / "probe.st", "--model", "tests.replay.small_model:make"
    )
    assert "activations: 1 layers" in text and "[5 x 4]" in text


def test_a_probe_that_is_not_there(ckpts: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        told(ckpts, "--probe", "nowhere.safetensors")
