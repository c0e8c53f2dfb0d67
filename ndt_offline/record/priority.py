"""The writer's priority: it takes only what training leaves, until training waits for it.

A session of its own is a scheduling group of its own where the system has autogroups: there the
group's priority counts, and `nice` only within it; elsewhere it is the other way round. Both are
set. A group's priority can be taken back by anybody, `nice` cannot.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LOWEST = 19


def lower() -> None:
    """Behind everything else that wants to run."""
    _group(LOWEST)
    if hasattr(os, "nice"):
        os.nice(LOWEST)
    if hasattr(os, "sched_setscheduler"):  # batch: waking up never pushes the trainer off its core
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def restore() -> bool:
    """As others again, as far as the system lets us; False: too soon after the last change."""
    return _group(0)


def _group(nice: int) -> bool:
    try:
        Path("/proc/self/autogroup").write_text(str(nice))
    except BlockingIOError:
        return False
    except OSError:  # no such thing here
        pass
    return True
