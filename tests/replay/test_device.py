"""`--device`: what is refused, and an analysis in batches from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ndt_offline import Recorder, pipeline
from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.pipeline import Result, analyze
from ndt_offline.replay import block, device
from ndt_offline.replay.batch import BatchReplayer
from ndt_offline.run.reader import open_run

QUICK = {"detector": "zscore", "draws": 1, "metrics": ("stable_rank",), "report": False}
BATCH = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven checkpoints, the last of them damaged."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("device") / "ckpts"
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 5))
    probe = (torch.randn(50, 12), torch.arange(50) % 5)
    with Recorder(folder, model, probe=probe, every=1) as record:
        for _ in range(10):
            with torch.no_grad():
                model[0].weight.add_(0.05 * torch.randn(30, 12))
            record(loss=1.0)
    last = open_run(folder).entries[-1].path
    assert last is not None
    last.write_bytes(last.read_bytes()[:-9])
    return folder


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processor taken for a GPU; how many checkpoints each batch held."""
    seen: list[int] = []
    measure_many = BatchReplayer.measure_many

    def counted(self: BatchReplayer, decoded: list) -> list:  # type: ignore[type-arg]
        seen.append(sum(one is not None for one in decoded))
        return measure_many(self, decoded)

    monkeypatch.setattr(BatchReplayer, "measure_many", counted)
    monkeypatch.setattr(BatchReplayer, "_planned", lambda self: BATCH)
    monkeypatch.setattr(pipeline, "find_device", lambda asked: "cuda:0")
    monkeypatch.setattr(block, "find_device", lambda asked: "cpu:0")
    return seen


def numbers(result: Result) -> dict[str, np.ndarray]:
    names = ("activations/singular_values", "weights/singular_values", "signals/probe")
    return {name: np.asarray(result.results.root[name][:]) for name in names}


def test_an_analysis_in_batches(run: Path, tmp_path: Path, batches: list[int]) -> None:
    plain = analyze(run, out=tmp_path / "cpu.zarr", **QUICK)
    assert plain.results.attrs["devices"] == ["cpu"] and not batches
    there = analyze(run, out=tmp_path / "gpu.zarr", device="cuda", **QUICK)
    assert there.results.attrs["devices"] == ["cuda"] and batches == [4, 4, 2]
    assert [p.step for p in there.problems] == [p.step for p in plain.problems] == [10]
    for name, values in numbers(there).items():
        np.testing.assert_allclose(values, numbers(plain)[name], rtol=1e-5)


def test_what_is_gone_on_with_is_the_same(run: Path, tmp_path: Path, batches: list[int]) -> None:
    whole = analyze(run, out=tmp_path / "a.zarr", device="cuda", **QUICK)
    expected = numbers(whole)
    for name in ("records/spectra", "records/measured"):
        for row in (2, 3, 9):
            whole.results.root[name][row] = 0
    for name in ("activations/singular_values", "weights/singular_values"):
        whole.results.root[name][3] = np.nan
    batches.clear()
    again = analyze(run, out=tmp_path / "a.zarr", device="cuda", **QUICK)
    assert again.replayed == 3 and batches == [2, 1]
    for name, values in numbers(again).items():
        np.testing.assert_array_equal(values, expected[name])


def test_names_of_devices() -> None:
    assert device.find_device("cpu") == "cpu"
    for name in ("gpu", "cuda:", "cuda:x", "cpu:0", ""):
        with pytest.raises(UsageError, match="is not a device"):
            device.check_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    assert device.find_device("auto") == "cpu"
    with pytest.raises(RefusedError, match="torch sees no CUDA device") as caught:
        analyze(run, out=tmp_path / "a.zarr", device="cuda", **QUICK)
    assert "--device cpu" in str(caught.value.remedy)


def test_gpus_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert device.gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device.gpus() == ["0", "1"]
    assert device.find_device("auto") == "cuda:0" and device.find_device("cuda:1") == "cuda:1"
    with pytest.raises(RefusedError, match="it sees 2 GPUs"):
        device.find_device("cuda:2")
