"""A small training that is recorded, for the tests of recording."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder
from ndt_offline.record import handover
from ndt_offline.record.snapshot import Snapshot
from ndt_offline.run.identity import content
from ndt_offline.run.lock import Lock


def make_model(width: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))


def updates(model: nn.Module, count: int, pause: float = 0.0) -> Any:
    """Train; yields the loss after each update."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(count):
        x = torch.randn(8, 16, generator=generator)
        loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(pause)
        yield loss


def digest(model: nn.Module) -> str:
    """The content checksum of the model's present state."""
    return content(*Snapshot(model).take())


def record_forever(run: Path, acknowledged: Path, seed: int) -> None:
    """Record every update and write down each step whose `record()` has returned."""
    model = make_model()
    handle = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    record = Recorder(run, model, every=1)
    os.write(handle, f"0 {digest(model)}\n".encode())
    for step, loss in enumerate(updates(model, 100_000, pause=0.0005 * (seed % 3)), start=1):
        record(loss=loss)
        os.write(handle, f"{step} {digest(model)}\n".encode())


def forked_trainer(run: Path, acknowledged: Path, seed: int) -> int:
    """The process of a child that records for ever; with an odd seed before there is a writer."""
    if (child := os.fork()) == 0:
        try:
            warnings.simplefilter("ignore")
            if seed % 2:
                handover.STARTING = 0.0
            record_forever(run, acknowledged, seed)
        finally:
            os._exit(1)
    return child


def wait_for_writer(attempt: Path, seconds: float = 180.0) -> None:
    """Until the attempt's writer has ended; on a busy machine it may not even have begun."""
    end, journal = time.monotonic() + seconds, attempt / "journal.jsonl"
    while time.monotonic() < end:
        lock = Lock(attempt / "writer.lock")
        ended = journal.exists() and b'"kind":"close"' in journal.read_bytes()
        if ended and lock.take():
            lock.drop()
            return
        time.sleep(0.02)
    raise AssertionError(f"the writer of {attempt} still works after {seconds} s")


def wait_for_ring(record: Recorder, left: int = 0, seconds: float = 180.0) -> None:
    """Until at most so many checkpoints wait for the writer."""
    ring = record._delivery._handover.ring  # type: ignore[union-attr]
    end = time.monotonic() + seconds
    while len(ring.waiting()) > left:  # type: ignore[union-attr]
        assert time.monotonic() < end, "the writer does not come along"
        time.sleep(0.002)
