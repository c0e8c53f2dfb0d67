"""Stores made by hand, so that what a report says of them is known: no training, no replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndt_offline.execute.derive import derive
from ndt_offline.execute.question import Question
from ndt_offline.report.summary import summary_rows
from ndt_offline.store import schema
from ndt_offline.store.arrays import put_series
from ndt_offline.store.growth import grow
from ndt_offline.store.growth import make_store as make_store_on_disk
from ndt_offline.store.results import Results

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}$x_1$\u202e=cmd()\x1b[31m"


@dataclass
class Made:
    """What `pipeline.Result` offers, without a run behind it."""

    run: str
    store: Path
    table: list[dict[str, Any]]
    problems: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    report: Path | None = None
    signs: list[Any] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    command: str = "ndt-analyze somewhere"
    baseline: Any = None

    @property
    def results(self) -> Results:
        return Results(self.store)


def make_store(
    path: Path,
    rows: int = 401,
    layers: tuple[str, ...] = ("fc1", "fc2"),
    jump: int | None = 200,
    seed: int = 0,
    restarts: tuple[int, ...] = (),
    **question: Any,
) -> Made:
    """A store of noise around known spectra; `jump` plants a step in the first layer's."""
    rng = np.random.default_rng(seed)
    width, steps = 8, 5 * np.arange(rows)
    spaces = [
        schema.Space(
            name,
            tuple(schema.LayerInfo(n, "linear", 32, width) for n in layers)
            if name == "activations"
            else tuple(schema.LayerInfo(f"{n}.weight", "weight", 16, width) for n in layers),
        )
        for name in ("activations", "weights")
    ]
    about = {"key": "0", "loss": "cross_entropy", "parameters": {}, "skipped": []}
    root = make_store_on_disk(path, spaces, rows, {"activations": 1, "weights": 2})
    root.attrs["restarts"] = restarts
    root.attrs["setup"] = about | {"notes": [], "problems": []}
    grow(root, steps, 0)
    for space in spaces:
        level = 2.0 + 0.01 * rng.standard_normal((rows, len(layers)))
        if jump is not None and space.name == "activations":
            level[jump:, 0] += 1.0
        tail = np.sqrt((level[..., None] - 1.0) / (width - 1)) * np.ones(width - 1)
        root[space.name]["singular_values"][:] = np.concatenate(
            [np.ones((rows, len(layers), 1)), tail], axis=-1
        )
        root[space.name]["status"][:] = schema.STATUS["ok"]
    root["records"]["spectra"][:] = np.arange(1, rows + 1, dtype=np.uint64)
    root["records"]["outcome"][:] = schema.OUTCOME["ok"]
    loss = 2.0 * np.exp(-np.arange(rows) / 100) + 0.05 * rng.random(rows)
    put_series(root["signals"], "loss", ("step",), loss, long_name="loss")
    root["signals"]["probe"][:, 0] = loss
    results = Results(path)
    asked = {"metrics": ("stable_rank",), "draws": 10, "phase_draws": 19} | question
    derive(results, Question(**asked))
    schema.consolidate(path)
    return Made(str(path.parent), path, summary_rows(Results(path)))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two layers, a step of 100 sigma planted at training step 1000 in the first activations."""
    return make_store(tmp_path_factory.mktemp("made") / "analysis.zarr")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same with a layer name that is an attack on whoever prints it."""
    path = tmp_path_factory.mktemp("hostile") / "analysis.zarr"
    return make_store(path, layers=(HOSTILE, "=1+1"))


Maker = Callable[..., Made]
