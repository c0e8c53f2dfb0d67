"""Replaying blocks: where they run is behind one interface, what they do is in `replay.block`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from threadpoolctl import threadpool_limits

from ndt_offline.replay.mark import Block, BlockReport
from ndt_offline.replay.setup import Setup

Told = Callable[[int], None]  # rows finished since the last call


class Executor(Protocol):
    """Runs every block, in any order, and yields a report as each is finished."""

    def __call__(
        self, setup: Setup, store: str, blocks: Sequence[Block], told: Told
    ) -> Iterator[BlockReport]: ...


def in_process(
    setup: Setup, store: str, blocks: Sequence[Block], told: Told
) -> Iterator[BlockReport]:
    """One after another in this process: what a short analysis wants."""
    import torch

    from ndt_offline.replay.block import BlockRunner

    threads = torch.get_num_threads()
    try:
        # One BLAS thread: more never helped here, and cost up to 8 times under load.
        with threadpool_limits(limits=1):
            runner = BlockRunner(setup, store)
            for block in blocks:
                yield runner(block, told)
    finally:
        torch.set_num_threads(threads)
