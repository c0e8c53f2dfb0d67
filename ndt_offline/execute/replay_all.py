"""Replaying blocks: where they run is behind one interface, what they do is in `replay.block`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ndt_offline.execute.guard import CAN_FORK, Died, Told, run_guarded
from ndt_offline.execute.quarantine import isolate
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport


class Executor(Protocol):
    """Runs every block, in any order, and yields a report as each is finished."""

    def __call__(self, job: Job, blocks: Sequence[Block], told: Told) -> Iterator[BlockReport]: ...


def in_process(job: Job, blocks: Sequence[Block], told: Told) -> Iterator[BlockReport]:
    """One after another: what a short analysis wants. A block that kills is run again alone."""
    from threadpoolctl import threadpool_limits

    # One BLAS thread: more never helped here, and cost up to 8 times under load.
    with threadpool_limits(limits=1):
        if not CAN_FORK:
            yield from _here(job, blocks, told)
            return
        left = list(blocks)
        while left:
            try:
                for report in run_guarded(job, left, told):
                    left.pop(0)
                    yield report
            except Died:
                yield isolate(job, left.pop(0))


def _here(job: Job, blocks: Sequence[Block], told: Told) -> Iterator[BlockReport]:
    import torch

    from ndt_offline.replay.block import BlockRunner

    threads = torch.get_num_threads()
    try:
        runner = BlockRunner(job)
        for block in blocks:
            yield runner(block, lambda row: told(int(row >= 0)))
    finally:
        torch.set_num_threads(threads)
