"""One checkpoint replayed: against the eager model, its own hooks and a float64 SVD."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder
from ndt_offline.errors import UsageError
from ndt_offline.replay.forward import Replayer, Row
from ndt_offline.replay.losses import loss_and_accuracy
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.run.reader import Decoder, open_run
from ndt_offline.store.schema import STATUS


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 5))


PROBE = (torch.randn(30, 12, generator=torch.Generator().manual_seed(2)), torch.arange(30) % 5)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("forward") / "ckpts", network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(folder, model, probe=PROBE, every=1) as record:
        for update in range(12):
            loss = F.cross_entropy(model(PROBE[0]), PROBE[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if update == 10:
                with torch.no_grad():
                    model[2].weight[1, 1] = math.nan
            record(loss=loss)
    return folder


def rows_of(path: Path, order: list[int], parameters: Parameters | None = None) -> dict[int, Row]:
    run = open_run(path)
    replayer = Replayer(run, prepare(run, parameters or Parameters()))
    decoder = Decoder(run.path, run.entries)
    return {row: replayer.measure(decoder.read(run.entries[row])) for row in order}


@pytest.mark.parametrize("center", [False, True])
def test_spectra_of_the_eager_model(path: Path, center: bool) -> None:
    found = rows_of(path, [4], Parameters(center=center))[4]
    model, seen = network(), []
    model.load_state_dict(open_run(path).checkpoint(4))
    model[0].register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    with torch.no_grad():
        seen.append(model(PROBE[0]))
    for space, tensors in {
        "activations": seen,
        "weights": [model[0].weight.detach(), model[2].weight.detach()],
    }.items():
        for index, tensor in enumerate(tensors):
            matrix = tensor.double().numpy()
            matrix = matrix - matrix.mean(0) if center else matrix
            exact = np.linalg.svd(matrix, compute_uv=False)
            values = found.spectra[space][index]
            assert np.abs(values[: len(exact)] - exact).max() <= 1e-9 * exact[0]
            assert np.isnan(values[len(exact) :]).all()
    loss = F.cross_entropy(seen[1].double(), PROBE[1]).item()
    hits = (seen[1].argmax(1) == PROBE[1]).double().mean().item()
    assert found.probe[:2] == pytest.approx([loss, hits], rel=1e-12)


def test_a_row_does_not_depend_on_the_rows_before_it(path: Path) -> None:
    forwards, backwards = rows_of(path, list(range(12))), rows_of(path, list(range(11, -1, -1)))
    alone = rows_of(path, [6])
    for row in range(12):
        for other in (backwards, alone if row == 6 else forwards):
            for space in ("activations", "weights"):
                for part in ("spectra", "status"):
                    mine = getattr(forwards[row], part)[space]
                    np.testing.assert_array_equal(mine, getattr(other[row], part)[space])
            np.testing.assert_array_equal(forwards[row].probe, other[row].probe)


def test_nan_is_a_finding(path: Path) -> None:
    row = rows_of(path, [11])[11]
    ok, bad = STATUS["ok"], STATUS["not_finite"]
    assert row.status["weights"].tolist() == [ok, bad]
    assert row.status["activations"].tolist() == [ok, bad]
    assert np.isnan(row.spectra["weights"][1]).all() and row.problem == ""
    assert math.isnan(row.probe[0])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mse", F.mse_loss),
        ("l1", F.l1_loss),
        ("bce_with_logits", F.binary_cross_entropy_with_logits),
    ],
)
def test_losses_of_a_regression(name: str, kind: object) -> None:
    output, targets = torch.randn(7, 1), (torch.rand(7) > 0.5).float()
    expected = kind(output.double(), targets.double()[:, None])  # type: ignore[operator]
    loss, accuracy = loss_and_accuracy(name, output, targets)
    assert loss == pytest.approx(float(expected), rel=1e-12)
    hits = ((output[:, 0] > 0) == (targets > 0.5)).double().mean()
    assert math.isnan(accuracy) if name != "bce_with_logits" else accuracy == float(hits)


def test_tokens_and_what_is_ignored() -> None:
    output, targets = torch.randn(2, 3, 4), torch.tensor([[0, 1, -100], [3, -100, 2]])
    kept = targets != -100
    loss, accuracy = loss_and_accuracy("cross_entropy", output, targets)
    assert loss == pytest.approx(float(F.cross_entropy(output[kept].double(), targets[kept])))
    assert accuracy == float((output[kept].argmax(1) == targets[kept]).double().mean())
    assert loss_and_accuracy("none", output, targets) == pytest.approx((math.nan,) * 2, nan_ok=True)
    with pytest.raises(UsageError, match="does not fit the probe"):
        loss_and_accuracy("cross_entropy", output, torch.zeros(5, dtype=torch.long))
    with pytest.raises(UsageError, match="not known"):
        loss_and_accuracy("hinge", output, targets)
