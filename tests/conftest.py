"""A small recorded run that most tests start from, and the real MNIST where it is given."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Two processes of tests share the cores, and many tests fork: a child in which GNU OpenMP once had
# several threads waits for ever. Before whatever reads these.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")})

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn
from torch.nn import functional as F

from ndt_offline import Recorder

# How long an example takes is the machine's affair.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

# Files of a minute and more come first: begun last, one of them leaves the other cores idle.
LONGEST = (
    "test_s3.py", "test_measures.py", "test_studies.py", "test_executors.py", "test_pipeline.py",
    "test_resume.py", "test_baselines.py", "test_s3_ownership.py", "test_readme.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def record_small(path: Path, updates: int, start_step: int = 0, seed: int = 0) -> None:
    """Train the small model on a fixed task and record every 5 updates."""
    torch.manual_seed(seed)
    x, y = torch.randn(64, 12), torch.randint(0, 4, (64,))
    torch.manual_seed(seed + 1000 * start_step)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(path, model, probe=(x[:32], y[:32]), start_step=start_step) as record:
        for _ in range(start_step, updates):
            rows = torch.randint(0, 64, (16,))
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(loss=loss, lr=0.1)


@pytest.fixture(scope="session")
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "ckpts"
    record_small(path, updates=400)
    return path


@pytest.fixture
def run_path(_recorded: Path, tmp_path: Path) -> Path:
    """A fresh copy of a recorded run: 81 checkpoints, steps 0, 5, ..., 400."""
    return Path(shutil.copytree(_recorded, tmp_path / "ckpts"))


@pytest.fixture
def checkpoint_file(run_path: Path) -> Callable[[int], Path]:
    folder = run_path / "attempts" / "0001" / "checkpoints"
    return lambda step: folder / f"step_{step:012d}.safetensors"


@pytest.fixture(scope="session")
def mnist() -> Path:
    path = os.environ.get("NDT_MNIST")
    if not path or not Path(path).is_file():
        pytest.skip("NDT_MNIST does not name an mnist.npz")
    return Path(path)
