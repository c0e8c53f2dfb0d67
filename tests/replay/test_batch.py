"""Several checkpoints at once on a device: on the processor, and on CUDA where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ndt_offline import Recorder
from ndt_offline.replay import batch, device, grams
from ndt_offline.replay.batch import BatchReplayer
from ndt_offline.replay.forward import Replayer, Row
from ndt_offline.replay.setup import Parameters, Setup, prepare
from ndt_offline.replay.spectra import RANK_FIRST, singular_values
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Decoder, Run, open_run

OUT = RANK_FIRST + 16
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(20, 32), nn.LayerNorm(32)
        self.core = nn.MultiheadAttention(32, 4, batch_first=True)
        self.wide, self.head = nn.Linear(32, OUT), nn.Linear(OUT, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.words(x)
        y = y + self.core(self.norm(y), self.norm(y), self.norm(y), need_weights=False)[0]
        return self.head(torch.nn.functional.gelu(self.wide(y)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(6, 9, batch_first=True), nn.Linear(9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.core(x)[0][:, -1])


def mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    layers = (nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 5))
    return nn.Sequential(*layers), torch.randn(90, 20), torch.arange(90) % 5


def cnn() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    first = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    second = (nn.Conv2d(8, 8, 3, 2, groups=4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5))
    return nn.Sequential(*first, *second), torch.randn(40, 3, 14, 14), torch.arange(40) % 5


def attention() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    return Attention(), torch.randint(0, 20, (30, 16)), torch.randint(0, 20, (30, 16))


def recurrent() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    return Recurrent(), torch.randn(12, 7, 6), torch.arange(12) % 3


Made = Callable[[], tuple[nn.Module, torch.Tensor, torch.Tensor]]


def recorded(folder: Path, made: Made, count: int = 6) -> tuple[Run, Setup, list[Decoded]]:
    torch.manual_seed(3)
    model, x, y = made()
    with Recorder(folder / "run", model, probe=(x, y), every=1) as record:
        for _ in range(count - 1):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
            record(loss=1.0)
    run = open_run(folder / "run")
    decoder = Decoder(run.path, run.entries)
    return run, prepare(run, Parameters()), [decoder.read(entry) for entry in run.entries]


def assert_same(found: Row | None, expected: Row, tolerance: float) -> None:
    assert found is not None and found.problem == expected.problem == ""
    for space, status in expected.status.items():
        np.testing.assert_array_equal(found.status[space], status)
        for mine, theirs in zip(found.spectra[space], expected.spectra[space], strict=True):
            np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
            assert np.nanmax(np.abs(mine - theirs), initial=0.0) <= tolerance * theirs[0]
    np.testing.assert_allclose(found.probe, expected.probe, rtol=1e-5)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("made", [mlp, cnn, attention, recurrent])
def test_a_batch_is_what_single_checkpoints_are(made: Made, name: str, tmp_path: Path) -> None:
    run, setup, decoded = recorded(tmp_path, made)
    replayer = Replayer(run, setup)
    expected = [replayer.measure(one) for one in decoded]
    several = BatchReplayer(run, setup, name, size=4)
    found = several.measure_many(decoded[:4]) + several.measure_many([*decoded[4:], None, None])
    for mine, theirs in zip(found, [*expected, None, None], strict=True):
        if theirs is None:
            assert mine is None
        else:
            assert_same(mine, theirs, 1e-5)
    for mine, theirs in zip(decoded[:2], expected[:2], strict=True):
        assert_same(BatchReplayer(run, setup, name, size=1).measure(mine), theirs, 1e-5)


def test_which_graphs_go_together(tmp_path: Path) -> None:
    for made in (mlp, cnn, attention):
        run, setup, _ = recorded(tmp_path / made.__name__, made, 1)
        assert BatchReplayer(run, setup, "cpu", size=2)._together


def test_a_place_does_not_depend_on_the_others(tmp_path: Path) -> None:
    run, setup, decoded = recorded(tmp_path, attention)
    several = BatchReplayer(run, setup, "cpu", size=4)
    whole = several.measure_many(decoded[:4])
    part = several.measure_many([None, decoded[1], None, decoded[3]])
    for mine, theirs in zip(part[1::2], whole[1::2], strict=True):
        assert mine is not None and theirs is not None
        for space in ("activations", "weights"):
            np.testing.assert_array_equal(mine.spectra[space], theirs.spectra[space])


def test_nan_collapse_and_zeros(tmp_path: Path) -> None:
    """One checkpoint each: NaN, a layer of rank one, dead units, all zero."""
    run, setup, decoded = recorded(tmp_path, mlp, 4)
    replayer = Replayer(run, setup)
    span = {t.name: s for t, s in decoded[0].layout.spans()}["0.weight"]
    for one, kind in zip(decoded, ("nan", "rank one", "dead", "zero"), strict=True):
        weight = one.vectors["float32"][span].view(np.float32).reshape(64, 20).copy()
        if kind == "nan":
            weight[3, 4] = np.nan
        elif kind == "rank one":
            weight[:] = np.outer(weight[:, 0], weight[0])
        else:
            weight[: 5 if kind == "dead" else 64] = 0.0
        one.vectors["float32"] = one.vectors["float32"].copy()
        one.vectors["float32"][span] = weight.ravel().view(np.uint8)
    expected = [replayer.measure(one) for one in decoded]
    found = BatchReplayer(run, setup, "cpu", size=4).measure_many(decoded)
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        assert_same(mine, theirs, 1e-6)
    assert found[0] is not None
    np.testing.assert_array_equal(found[0].status["activations"], expected[0].status["activations"])


def test_less_memory_means_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, setup, decoded = recorded(tmp_path, mlp, 4)
    expected = [Replayer(run, setup).measure(one) for one in decoded]
    several, seen, holds = BatchReplayer(run, setup, "cpu", size=4), [], 1

    def small(given: list[Decoded | None], where: torch.device) -> dict[str, torch.Tensor]:
        seen.append(len(given))
        if len(given) > holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return stacked(given, where)

    stacked = batch.stack
    monkeypatch.setattr(batch, "stack", small)
    for mine, theirs in zip(several.measure_many(decoded), expected, strict=True):
        assert_same(mine, theirs, 1e-5)
    assert seen == [4, 2, 1, 1, 2, 1, 1]
    holds = 0
    with pytest.raises(MemoryError, match="does not hold one checkpoint; --device cpu"):
        several.measure_many(decoded)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (90, 90), (2000, 130), (1, 7)])
def test_values_of_the_same_matrix(shape: tuple[int, int], name: str) -> None:
    matrices = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    there = torch.from_numpy(matrices).to(name)
    found = grams.gram_values(torch.stack([grams.gram(one, pieces=4096) for one in there]))
    for mine, matrix in zip(found, matrices, strict=True):
        assert mine is not None
        np.testing.assert_allclose(mine, singular_values(matrix), rtol=1e-6)


def test_squares_that_tell_nothing_ask_for_the_matrix() -> None:
    normal = torch.randn(50, 40, dtype=torch.float64)
    deficient = normal[:, :1] @ normal[:1]
    for matrix in (1e-150 * normal, 1e150 * normal, deficient, 0.0 * normal):
        assert grams.gram_values(grams.gram(matrix)[None]) == [None]
    (values,) = grams.gram_values(grams.gram(normal * torch.nan)[None])
    assert values is not None and np.isnan(values).all() and len(values) == 40


def test_batches_are_planned_from_shapes() -> None:
    assert device.batch_size(each=1e6, flops=1e6, memory=10**11) == device.MOST
    assert device.batch_size(each=1e9, flops=1e6, memory=10**10) == 2
    assert device.batch_size(each=1e12, flops=1e6, memory=10**10) == 1
    assert device.batch_size(each=1e6, flops=1.5e11, memory=10**11) == 4


def test_tf32_is_off_inside_and_as_it_was_outside() -> None:
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32"
        with device.exact_products():
            assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
        assert [place.fp32_precision for place in places] == ["tf32", "tf32"]
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def test_batches_of_centred_matrices(tmp_path: Path) -> None:
    run, _, decoded = recorded(tmp_path, attention, 2)
    setup = prepare(run, Parameters(center=True))
    expected = [Replayer(run, setup).measure(one) for one in decoded]
    found = BatchReplayer(run, setup, "cpu", size=2).measure_many(decoded)
    for mine, theirs in zip(found, expected, strict=True):
        assert_same(mine, theirs, 1e-5)
