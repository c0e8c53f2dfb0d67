"""The errors of recording with `precision=` are shown, and are those of the weights."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_packing import record, vectors_at

from ndt_offline import analyze
from ndt_offline.cli.main import command as cli
from ndt_offline.run.packing import pack_attempt
from ndt_offline.run.reader import Decoder, open_run
from ndt_offline.run.rounding import rounding

SENTENCE = r"recorded at q12: no value moved by more than (\S+), and no singular .* than (\S+)"


def weight(vectors: dict[str, np.ndarray]) -> np.ndarray:
    return vectors["float32"].view(np.float32).reshape(120, 100).astype(np.float64)


@pytest.mark.parametrize("packed", [False, True])
def test_the_bounds_hold_and_are_shown(tmp_path: Path, packed: bool) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(8), raw=(3,), precision="q12")
    if packed:
        list(pack_attempt(attempt))
    opened = open_run(run)
    decoder = Decoder(run, opened.entries)
    errors = [
        weight(decoder.read(entry).vectors) - weight(vectors_at(entry.step))
        for entry in opened.entries
    ]
    (told,) = rounding(opened)
    found = re.search(SENTENCE, told)
    assert found is not None
    single, spectral = (1.05 * float(number) for number in found.groups())  # two digits are shown
    assert 0 < max(np.abs(e).max() for e in errors) <= single < 2e-3
    assert 0 < max(np.linalg.norm(e, 2) for e in errors) <= spectral
    assert not errors[3].any()  # raw: exact
    said = CliRunner().invoke(cli, ["inspect", str(run), "--no-trial"]).output
    assert told in " ".join(said.split())
    result = analyze(run, out=tmp_path / "store.zarr", report=False)
    assert told in result.notes
    signals = result.results.root["signals"]
    assert np.nanmax(signals["error_max"][:]) == np.nanmax(opened.scalar("error_max")) > 0


def test_a_lossless_run_says_nothing(tmp_path: Path) -> None:
    record(tmp_path / "run", range(3))
    opened = open_run(tmp_path / "run")
    assert rounding(opened) == [] and "error_max" not in opened.scalar_names
