"""The processors that there are for this process."""

from __future__ import annotations

import os


def cores() -> int:
    """How many it may use: those it is bound to, else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
