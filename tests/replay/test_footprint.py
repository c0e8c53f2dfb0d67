"""The memory of a process is its own. Each in a process that holds what it says, and no more."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

MB = 2**20
HEAD = """
import os
import numpy as np
from ndt_offline.replay.footprint import forget_parent, peak_memory
def told(*numbers):
    print(*numbers, flush=True)
    os._exit(0)
def grown(megabytes):
    before = peak_memory()
    large = np.ones(megabytes * 2**17)
    told(before, peak_memory())
"""


def said_by(code: str) -> list[int]:
    line = [sys.executable, "-c", HEAD + code]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_what_was_allocated_is_seen() -> None:
    before, after = said_by("grown(512)")
    assert MB < before < 300 * MB
    assert 512 * MB <= after - before < 600 * MB


def test_a_child_does_not_count_its_parent() -> None:
    large = np.ones(2**26)
    assert MB < said_by("told(peak_memory())")[0] < large.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_a_forked_child_does_not_count_its_parent_either() -> None:
    fork = """
large = np.ones(1024 * 2**17)
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    forget_parent()
    grown(100)
"""
    before, after = said_by(fork)
    assert MB < before < 400 * MB  # as much as libraries take, of the parent's 1 GB
    assert 100 * MB <= after - before < 150 * MB
