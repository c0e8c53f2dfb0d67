"""The studies: their statistics on planted truth, and each study run small."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

PIPELINES = Path(__file__).parents[2] / "pipelines"
MNIST = os.environ.get("NDT_MNIST")
needs_mnist = pytest.mark.skipif(not MNIST, reason="NDT_MNIST names no mnist.npz")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(PIPELINES), *sys.path])
    return importlib.import_module


def invoke(module: ModuleType, *arguments: str) -> str:
    done = CliRunner().invoke(module.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


STEPS = np.arange(0, 4005, 5)


def sigmoid(middle: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(STEPS - middle) / width))


def test_a_planted_transition_is_known(load) -> None:
    around = load("around")
    when = around.known(STEPS, sigmoid(100, 5), sigmoid(1500, 50))
    # A logistic of width w passes .1, .5, .9 at m - 2.197 w, m, m + 2.197 w.
    expected = (100 + 5 * np.log(99), 1500 - 50 * np.log(9), 1500, 1500 + 50 * np.log(9), 4000)
    np.testing.assert_allclose(
        (when.memorised, when.low, when.middle, when.high, when.end), expected, atol=10
    )
    assert around.known(STEPS, sigmoid(100, 5), 0.8 * sigmoid(1500, 50)) is None


@pytest.mark.parametrize("late", [-400, 0, 700])
def test_a_series_is_halfway_where_it_was_planted(load, late: int) -> None:
    around = load("around")
    when = around.known(STEPS, sigmoid(100, 5), sigmoid(1500, 50))
    noise = np.random.default_rng(0).standard_normal(len(STEPS))
    series = 5 - 2 * sigmoid(1500 + late, 40) + 0.1 * noise
    assert abs(around.halfway(STEPS, series, when) - (1500 + late)) <= 25
    assert np.isnan(around.halfway(STEPS, 5 + 0.1 * noise, when))
    assert np.isnan(around.halfway(STEPS, np.sin(STEPS / 50), when))


def test_hits_and_their_chance(load) -> None:
    around = load("around")
    when = around.Known(100, 1000, 1100, 1210, 4000)
    assert around.found([1240], when) and not around.found([1300], when)
    assert around.nearest([400, 1050, 3000], when) == -50 and np.isnan(around.nearest([], when))
    assert around.chance([], when) == 0
    # One place in the middle: windows that begin within their own length before it.
    length = np.log((1210 + 50) / (1000 - 50))
    room = np.log(4000 / 100) - length
    assert around.chance([600.0], when) == pytest.approx(length / room, abs=0.005)
    assert around.chance(list(np.geomspace(100, 4000, 200)), when) == 1


def test_early_values_and_final_ones(load) -> None:
    early = load("early")
    x = [[1.0, 2.0, 3.0], [11.0, 12.0, 13.0], [21.0, 22.0, 23.0], [31.0, 32.0, 33.0]]
    falling = [[-v for v in group] for group in x]
    assert early.across(x, falling).startswith("-1.00 [-1.00")
    # Over all runs they rise together; within each group they fall.
    mixed = [[g + 0.1 * (3 - i) for i in range(3)] for g in (0.0, 10.0, 20.0, 30.0)]
    rho = 1 - 6 * (4 * 8) / (12 * (12**2 - 1))  # each block of three reversed: squares 4 + 0 + 4
    assert early.across(x, mixed).startswith(f"{rho:+.2f}")
    told = early.within(x, mixed)
    assert told.startswith("-1.00")
    # 2 of 6^4 orders are as extreme.
    orders = list(itertools.product(itertools.permutations(range(3)), repeat=4))
    exact = 2 / len(orders)
    assert abs(float(told.split("(")[1].rstrip(")")) - exact) < 0.004
    assert early.within([[1.0, 2.0]], [[1.0, 2.0]]) == "too few seeds"


def test_corruption_is_what_it_says(load) -> None:
    study, torch = load("intervention"), load("torch")
    random = torch.Generator().manual_seed(0)
    images, labels = torch.arange(2 * 196.0).view(2, 196), torch.arange(2)
    flat, same = study.blurred((torch.ones(2, 196), labels), random)
    assert torch.allclose(flat, torch.ones(2, 196)) and same is labels
    many = torch.arange(64)
    kept, moved = study.shuffled((images, many), random)
    assert kept is images and sorted(moved.tolist()) == many.tolist() and (moved != many).any()
    # A ramp is its own mean away from the border.
    ramp = torch.arange(14.0).repeat(14, 1).reshape(1, 196)
    assert torch.allclose(
        study.blurred((ramp, labels[:1]), random)[0].view(14, 14)[:, 2:12],
        ramp.view(14, 14)[:, 2:12],
    )


def test_grokking_is_seen(load, tmp_path: Path) -> None:
    out = str(tmp_path / "g")
    said = invoke(load("grokking"), "--out", out, "--seeds", "1", "--updates", "1600")
    assert "1 of 1 pass 90 % of held-out pairs" in said
    assert "weights embed.weight, effective rank" in said
    assert (tmp_path / "g/grokking.svg").is_file() and (tmp_path / "g/grokking.md").is_file()
    short = invoke(load("grokking"), "--out", f"{out}2", "--seeds", "1", "--updates", "100")
    assert "0 of 1 pass" in short and "nothing to judge" in short


@needs_mnist
def test_architectures_are_compared(load, tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "a"), "--seeds", "1", "--updates", "60"]
    arguments += ["--only", "MLP", "--only", "Transformer"]
    said = invoke(load("architectures"), "--mnist", str(MNIST), *arguments)
    assert "| MLP |" in said and "| Transformer |" in said and "too few" in said
    assert (tmp_path / "a/architectures.png").is_file()


@needs_mnist
def test_interventions_have_untouched_twins(load, tmp_path: Path) -> None:
    out = tmp_path / "i"
    arguments = ["--out", str(out), "--seeds", "1", "--starts", "0", "--recovery", "25"]
    said = invoke(load("intervention"), "--mnist", str(MNIST), *arguments)
    assert "labels shuffled" in said and "images blurred" in said
    # Before the window both are the same training, bit for bit.
    from ndt_offline import open_run

    twin, run = (open_run(out / name) for name in ("twin-0", "labels-shuffled-0-0"))
    assert all(
        (a == b).all()
        for a, b in zip(twin.checkpoint(0).values(), run.checkpoint(0).values(), strict=True)
    )
    # What is there is not recorded or analysed again.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("journal.jsonl")}
    assert invoke(load("intervention"), "--mnist", str(MNIST), *arguments).count("recording") == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("journal.jsonl")}


@needs_mnist
def test_failures_are_watched_for(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, out = load("monitoring"), tmp_path / "m"
    monkeypatch.setenv("NDT_BASELINES", "")  # the study sets its own, and this takes it back
    monkeypatch.setattr(study, "WATCHED", 6.0)
    few = ("learning rate x 30", "dying units")
    monkeypatch.setattr(study, "FAILURES", {name: study.FAILURES[name] for name in few})
    arguments = ["--out", str(out), "--healthy", "6", "--seeds", "1", "--updates", "60"]
    said = invoke(study, "--mnist", str(MNIST), *arguments, "--no-watch")
    assert all(f"| {name} |" in said for name in study.FAILURES) and "false alarms | 0/" in said
    # Three runs make a wide band: a learning rate of 30 times still leaves it.
    digits = study.load_digits(Path(str(MNIST)), pooled=True)
    ended = study.watched(out / "live", digits, "learning rate x 30", 60)
    assert 30 <= int(ended) <= 60


def test_every_failure_acts_on_the_training(load) -> None:
    failures, torch = load("failures"), load("torch")
    random = torch.Generator().manual_seed(0)
    digits = {
        "x_train": torch.rand(256, 196, generator=random),
        "y_train": torch.randint(10, (256,), generator=random),
    }

    def trained(act=None) -> dict:
        training = failures.Training(digits, 0)
        for update in range(4):
            if act is not None and update >= 1:
                act(training)
            training.update()
        return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}

    healthy = trained()
    for name, act in failures.FAILURES.items():
        ill = trained(act)
        assert all(torch.isfinite(tensor).all() for tensor in ill.values())
        assert any((ill[key] != healthy[key]).any() for key in healthy), name
    training = failures.Training(digits, 0)
    training.update()
    before = training.model[2].weight.clone()
    failures.FAILURES["frozen layer"](training)
    training.update()
    assert (training.model[2].weight == before).all()


def test_alarms_are_told_from_false_ones(load) -> None:
    study = load("monitoring")
    assert study.cell([500.0, float("nan"), 100.0], 400) == "1/3, after 100; 1 false before"
    assert study.cell([400.0], 400) == "0/1; 1 false before"  # nothing was changed yet


def test_an_alarm_does_not_know_what_comes_later(load) -> None:
    around = load("around")
    values = np.random.default_rng(0).standard_normal(60)
    whole = around.trailing_median(values)
    assert all(around.trailing_median(values[:n])[-1] == whole[n - 1] for n in range(1, 61))
    assert whole[30] == np.median(values[22:31])
