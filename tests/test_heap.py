"""Freed memory is used again, within bounds. Each in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
MB = 2**20
HEAD = """
import os
import resource
import numpy as np
from ndt_offline.heap import keep_freed
def told(*numbers):
    print(*numbers, flush=True)
    os._exit(0)
def resident():
    status = open("/proc/self/status").read()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10
def faults():
    # Of a pass that frees all that it made: 128 MB, in pieces for which numpy asks no huge pages.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [np.ones(2**18) for _ in range(64)]
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""


def said_by(code: str) -> list[int]:
    line = [sys.executable, "-c", HEAD + code]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_freed_memory_is_used_again() -> None:
    pages = 128 * MB // os.sysconf("SC_PAGE_SIZE")
    first, again = said_by("keep_freed(); told(faults(), faults())")
    assert first > pages / 2 and again < pages / 50
    # What it is for: by itself the allocator gives them back.
    assert said_by("faults(); told(faults())")[0] > pages / 2


def test_more_than_can_be_kept_is_given_back() -> None:
    held, left = said_by(
        "keep_freed()\n"
        "blocks = [np.ones(2**21) for _ in range(80)]\n"
        "held = resident(); del blocks; told(held, resident())"
    )
    assert held > 1280 * MB and left < 400 * MB
