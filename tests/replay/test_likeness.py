"""Similarity between layers at chosen steps: against the formula, on the run's own weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ndt_offline import Recorder, open_run
from ndt_offline.cli.similarity import command
from ndt_offline.errors import NdtError, UsageError
from ndt_offline.measure.similarity import hold, similarities
from ndt_offline.replay.likeness import Likeness, likeness
from ndt_offline.replay.setup import Parameters
from tests.conftest import small_model


def direct(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with explicit centring."""
    centring = np.eye(len(x)) - 1 / len(x)
    k, other = (centring @ a @ a.T @ centring for a in (x.astype(float), y.astype(float)))
    return float(np.sum(k * other) / np.sqrt(np.sum(k * k) * np.sum(other * other)))


def outputs(run: Path, step: int) -> list[np.ndarray]:
    """The two linear layers of the small model, by the model itself."""
    from safetensors.torch import load_file

    model = small_model()
    model.load_state_dict(open_run(run).checkpoint(step))
    with torch.no_grad():
        first = model[0](load_file(run / "probe.safetensors")["x"])
        return [first.numpy(), model[2](model[1](first)).numpy()]


def looked(run: Path, *steps: int, **parameters: object) -> Likeness:
    return likeness(open_run(run), steps, Parameters(**parameters))  # type: ignore[arg-type]


def test_each_entry_is_what_the_formula_says(run_path: Path) -> None:
    found = looked(run_path, 0, 200, 400)
    assert [layer.name for layer in found.layers] == ["0", "2"] and found.notes == ()
    assert list(found.matrices) == [(0, 0), (200, 200), (400, 400), (0, 200), (200, 400)]
    for (step, other), matrix in found.matrices.items():
        pairs = [[direct(x, y) for y in outputs(run_path, other)] for x in outputs(run_path, step)]
        np.testing.assert_allclose(matrix, pairs, atol=1e-6)


def test_matrices_of_layers_against_the_formula_and_rotated() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((40, width)) + width for width in (5, 70, 12)]
    others = [x @ np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0] * 7.5 for x in layers]
    for form in ("features", "samples"):
        held, moved = ([hold(x, form) for x in some] for some in (layers, others))
        expected = [[direct(x, y) for y in layers] for x in layers]
        np.testing.assert_allclose(similarities(held, held), expected, atol=1e-9)
        np.testing.assert_allclose(similarities(held, moved), expected, atol=1e-9)
        np.testing.assert_allclose(similarities(held, moved[:1])[:, 0], np.array(expected)[:, 0])
    short = hold(layers[0][:30], "samples")
    assert np.isnan(similarities(held, [short])).all()


class Tokens(nn.Module):
    """Positions of a sequence in one layer, samples in the other two."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.one, self.flat = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flat(torch.relu(self.one(torch.relu(self.each(x)).mean(1))))  # type: ignore[no-any-return]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = Tokens()
    with Recorder(
        tmp_path / "run", model, probe=(torch.randn(20, 4, 6), torch.arange(20) % 3)
    ) as r:
        for step in range(10):
            with torch.no_grad():
                model.flat.weight.mul_(0 if step == 7 else 1.5)
                model.flat.bias.zero_()
            r(loss=1.0)
    return tmp_path / "run"


def test_other_numbers_of_rows_are_marked_by_name(tokens: Path) -> None:
    found = looked(tokens, 0)
    matrix = found.matrices[0, 0]
    assert [(layer.name, layer.rows) for layer in found.layers] == [
        ("each", 80), ("one", 20), ("flat", 20),
    ]  # fmt: skip
    assert np.isnan(matrix[0, 1:]).all() and np.isnan(matrix[1:, 0]).all()
    assert matrix[0, 0] == pytest.approx(1) and 0 < matrix[1, 2] < 1
    assert found.notes == ("not compared, other rows: each (80 rows) | one, flat (20 rows)",)
    read = looked(tokens, 0, shapes=(("each", "flatten"),))
    assert np.isfinite(read.matrices[0, 0]).all() and read.notes == ()


def test_a_layer_without_variance_is_told(tokens: Path) -> None:
    found = looked(tokens, 0, 10, layers=("one", "flat"))
    assert np.isnan(found.matrices[10, 10][1]).all() and np.isnan(found.matrices[0, 10][:, 1]).all()
    assert found.notes == ("step 10: flat is constant over the probe, or not finite",)


def test_the_command_prints_a_table_that_fits_and_json(run_path: Path, tmp_path: Path) -> None:
    before = sorted(path for path in run_path.rglob("*"))
    shown = CliRunner().invoke(command, [str(run_path)], catch_exceptions=False).output
    assert "step 0:" in shown and "step 0 (down) and 400 (across):" in shown
    args = [str(run_path), "--steps", "0, 400", "--json", "--figure", str(tmp_path / "h.svg")]
    document = json.loads(CliRunner().invoke(command, args).stdout)
    assert document["steps"] == [0, 400] and document["layers"][0]["layer"] == "0"
    found = looked(run_path, 0, 400)
    for one in document["matrices"]:
        expected = found.matrices[one["step"], one["other_step"]]
        np.testing.assert_array_equal(np.array(one["linear_cka"]), expected)
    assert "step 0 (down)" in (tmp_path / "h.svg").read_text()
    assert sorted(path for path in run_path.rglob("*")) == before


def test_many_layers_with_long_names_fit(tmp_path: Path) -> None:
    parts = {f"a_module_with_quite_a_long_name_{i:02d}_of_many": nn.Linear(4, 4) for i in range(30)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    with Recorder(tmp_path / "run", model, probe=(torch.randn(9, 4), None)):
        pass
    shown = CliRunner().invoke(command, [str(tmp_path / "run")], catch_exceptions=False).output
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 100
    assert len([line for line in lines if line.startswith(" 7 a_mod")]) == 3  # 30 across, 13 fit


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("3", "the nearest is 5"),
        ("begin", "first, last"),
        (",", "names none"),
        ("-5", "first, last"),
    ],
)
def test_wrong_steps_are_told(run_path: Path, steps: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        CliRunner().invoke(
            command,
            [str(run_path), "--steps", steps],
            catch_exceptions=False,
            standalone_mode=False,
        )
    assert said in str(raised.value)


@pytest.mark.filterwarnings("ignore:ndt-offline. no probe")
def test_a_damaged_step_and_a_run_without_a_probe_are_told(run_path: Path, tmp_path: Path) -> None:
    entry = open_run(run_path).entry(400)
    assert entry.path is not None
    entry.path.write_bytes(entry.path.read_bytes()[:-4])
    assert np.isfinite(looked(run_path, 0).matrices[0, 0]).all()
    with pytest.raises(NdtError) as raised:
        looked(run_path, 400)
    assert raised.value.step == 400
    with Recorder(tmp_path / "bare", small_model()):
        pass
    with pytest.raises(UsageError, match="no probe"):
        looked(tmp_path / "bare", 0)
