"""The memory of a process is its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from ndt_offline.replay.footprint import peak_memory


def test_what_was_allocated_is_seen() -> None:
    before = peak_memory()
    large = np.ones(2**26)
    assert peak_memory() >= large.nbytes
    assert peak_memory() >= before > 2**20


def test_a_child_does_not_count_its_parent() -> None:
    large = np.ones(2**26)
    code = "from ndt_offline.replay.footprint import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < large.nbytes
