"""torch.distributed.checkpoint folders, against torch's own reader; and what they may not do."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from ndt_offline import analyze, open_run
from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.run import distcp
from ndt_offline.run.distcp import read_metadata


def model(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "a.weight": torch.randn(7, 5),
        "b": torch.randn(3, 2, 2).bfloat16(),
        "count": torch.tensor(seed),
        "mask": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
    }


def save(state: Any, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=str(folder))


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize("around", ["flat", "model", "app"])
def test_the_model_without_its_optimizer(tmp_path: Path, around: str) -> None:
    optimizer = {"state": {"a": {"step": torch.tensor(3.0)}}, "lr": 0.1}
    for step in (1, 2, 64):
        state = {"model": model(step), "optimizer": optimizer, "step": step}
        whole = {"flat": model(step), "model": state, "app": {"app": state}}[around]
        save(whole, tmp_path / f"step-{step}")
    run = open_run(tmp_path)
    assert run.steps == [1, 2, 64] and not run.problems
    equal(run.checkpoint(64), model(64))
    assert analyze(tmp_path, draws=1, report=False).exit_code == 0


def _rank(rank: int, folder: str, port: int) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    whole = model(5)
    state = {
        "a.weight": distribute_tensor(whole["a.weight"], mesh, [Shard(0)]),
        "b": distribute_tensor(whole["b"], mesh, [Shard(1)]),
        "count": whole["count"],
    }
    dcp.save({"model": state}, checkpoint_id=folder)
    dist.destroy_process_group()


def test_pieces_of_several_processes_are_put_together(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "ckpt-5"
    torch.multiprocessing.spawn(_rank, (str(folder), port), nprocs=2)
    assert len(list(folder.glob("*.distcp"))) == 2
    own = {name: torch.empty_like(model(5)[name]) for name in ("a.weight", "b", "count")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load({"model": own}, checkpoint_id=str(folder))
    equal(open_run(tmp_path).checkpoint(5), own)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Evil()),
        pickle.dumps({"state_dict_metadata": Evil()}, protocol=0),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ctorch\nload\n.",
        b"cndt_offline.run.distcp\nread_metadata\n.",
    ],
)
def test_metadata_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    save(model(), tmp_path / "step-1")
    save(model(), tmp_path / "step-2")
    (tmp_path / "step-2/.metadata").write_bytes(data)
    with pytest.raises(RefusedError, match="not run"):
        read_metadata(tmp_path / "step-2/.metadata")
    result = analyze(tmp_path, draws=1, report=False)
    assert result.exit_code == 3 and len(result.problems) == 1
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04.",
        b"garbage",
        b"r\xff\xff\xff\x7f.",
        pickle.dumps({"a": 1}),
        b"\x80\x04K\x01.",
    ],
)
def test_metadata_that_is_none(tmp_path: Path, data: bytes) -> None:
    save(model(), tmp_path / "step-2")
    (tmp_path / "step-2/.metadata").write_bytes(data)
    with pytest.raises(DamagedError):
        open_run(tmp_path).checkpoint(2)


def test_damaged_pieces_and_pickles_in_them(tmp_path: Path) -> None:
    save(model(), tmp_path / "step-2")
    (data,) = (tmp_path / "step-2").glob("*.distcp")
    whole = data.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        data.write_bytes(whole[:cut])
        with pytest.raises(DamagedError):
            open_run(tmp_path).checkpoint(2)
    data.write_bytes(bytes(len(whole)))
    with pytest.raises(DamagedError, match="a piece is not readable"):
        open_run(tmp_path).checkpoint(2)


def test_pieces_that_lie_over_each_other_leave_a_gap_and_are_refused(monkeypatch) -> None:
    """As many elements as the tensor has, but not each of them: the rest would be any memory."""
    pieces = iter([((0,), np.ones((2, 4), np.uint8)), ((1,), np.ones((2, 4), np.uint8))])
    monkeypatch.setattr(distcp, "_piece", lambda *given: next(pieces))
    about = SimpleNamespace(properties=SimpleNamespace(args=["float32"]), size=(4,))
    with pytest.raises(ValueError, match="gaps"):
        distcp._tensor(about, [(None, None)] * 2, {})


def test_every_flipped_byte_of_metadata_is_found_or_harmless(tmp_path: Path) -> None:
    save(model(), tmp_path / "step-2")
    path = tmp_path / "step-2/.metadata"
    whole = path.read_bytes()
    run, expected = open_run(tmp_path), model()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :])
        try:
            found = run.checkpoint(2)
        except NdtError:
            continue
        # What still reads holds the tensors' own bytes: a name may differ, values do not.
        for name in found.keys() & expected.keys():
            assert found[name].numel() == expected[name].numel()
