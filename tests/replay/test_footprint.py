"""The memory of a process is its own. Each in a process that holds what it says, and no more."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

MB = 2**20
HEAD = """
import os
import resource
import numpy as np
from ndt_offline.replay.footprint import forget_parent, keep_freed, peak_memory
def told(*numbers):
    print(*numbers, flush=True)
    os._exit(0)
def faults():
    # Of a pass that frees all that it made: 128 MB, in pieces for which numpy asks no huge pages.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [np.ones(2**18) for _ in range(64)]
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    pages = 128 * MB // os.sysconf("SC_PAGE_SIZE")
    first, again = said_by("keep_freed(); told(faults(), faults())")
    assert first > pages / 2 and again < pages / 50
    # What it is for: by itself the allocator gives them back.
    assert said_by("faults(); told(faults())")[0] > pages / 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_more_than_can_be_kept_is_given_back() -> None:
    held, left = said_by(
        "from ndt_offline.replay import footprint; keep_freed()\n"
        "blocks = [np.ones(2**21) for _ in range(80)]\n"
        "held = footprint._status('VmRSS'); del blocks; told(held, footprint._status('VmRSS'))"
    )
    assert held > 1280 * MB and left < 400 * MB
