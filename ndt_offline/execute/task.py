"""Tasks: what a Dask worker is asked to do. One block, a small report back."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TextIO

from ndt_offline.execute.quarantine import isolate
from ndt_offline.heap import keep_freed
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport


def replay_block(job: Job, block: Block) -> BlockReport:
    """Replay a block in this process; a checkpoint that hangs ends the process after the limit."""
    runner = _runner(job.token, _Same(job))
    try:
        return runner(block, _watchdog(job.limits.seconds))
    finally:
        faulthandler.cancel_dump_traceback_later()


def isolate_block(job: Job, block: Block) -> BlockReport:
    """Replay a block that killed workers, in a child of this one."""
    return isolate(job, block)


class _Same:
    """A job as an argument that does not count for the cache: its token does."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=1)
def _nowhere() -> TextIO:
    return open(os.devnull, "w")


@lru_cache(maxsize=2)
def _runner(token: str, same: _Same) -> BlockRunner:
    keep_freed()
    return BlockRunner(same.job)


def _watchdog(seconds: float) -> Callable[[int], None]:
    """Wind the clock at each row. It is C code, so that it rings even where Python is stuck."""
    armed = -seconds

    def starting(row: int) -> None:
        nonlocal armed
        now = time.monotonic()
        # Winding costs a thread: not more often than matters.
        if now - armed > min(1.0, seconds / 10):
            faulthandler.dump_traceback_later(seconds + seconds / 10, exit=True, file=_nowhere())
            armed = now

    return starting
