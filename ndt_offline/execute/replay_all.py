"""Replaying blocks: where they run is behind one interface, what they do is in `replay.block`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ndt_offline.execute.cluster import is_open, local_client, remote_client
from ndt_offline.execute.estimate import Estimate, best_workers, duration
from ndt_offline.execute.guard import CAN_FORK, Died, Told, run_guarded
from ndt_offline.execute.quarantine import isolate
from ndt_offline.execute.spread import Spread
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport

WORTH = 10.0  # seconds of work below which a cluster, which takes seconds to start, does not pay
SLOWEST = 100  # a checkpoint may take this many times what the first ones took
Reports = Generator[BlockReport, None, None]


class Executor(Protocol):
    """Runs every block, in any order, and yields a report as each is finished.

    Closing the generator stops the work; what is finished is in the store.
    """

    def __call__(self, job: Job, blocks: Sequence[Block], told: Told) -> Reports: ...


def in_process(job: Job, blocks: Sequence[Block], told: Told) -> Reports:
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


def _here(job: Job, blocks: Sequence[Block], told: Told) -> Reports:
    import torch

    from ndt_offline.replay.block import BlockRunner

    threads = torch.get_num_threads()
    try:
        runner = BlockRunner(job)
        for block in blocks:
            yield runner(block, lambda row: told(int(row >= 0)))
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Automatic:
    """The first block in a child of this process; the rest there too, or on all cores.

    workers: processes; None is one per core as far as memory holds. 1 never starts a cluster.
    say: told what was chosen, and the dashboard's address.
    """

    workers: int | None = None
    verbose: bool = False
    say: Callable[[str], None] = lambda text: None

    def __call__(self, job: Job, blocks: Sequence[Block], told: Told) -> Reports:
        first, rest = blocks[:1], blocks[1:]
        reports = list(in_process(job, first, told))
        yield from reports
        rows = sum(report.rows for report in reports)
        each = sum(report.seconds for report in reports) / max(rows, 1)
        left = sum(len(block.todo) for block in rest)
        peak = max(report.peak for report in reports)
        count = best_workers(Estimate(left, len(rest), peak, 0), self.workers)
        patience = min(job.limits.seconds, max(120.0, SLOWEST * each))
        job = replace(job, limits=replace(job.limits, seconds=patience))
        if count < 2 or left * each < WORTH:
            yield from in_process(job, rest, told)
            return
        with local_client(count, verbose=self.verbose) as client:
            about = f"about {duration(left * each / count)} of work"
            self.say(f"{count} processes for {about}; dashboard: {client.dashboard_link}")
            yield from Spread(client)(job, rest, told)


@dataclass(frozen=True)
class Cluster:
    """Every block on a cluster that is there already."""

    address: str | None = None
    file: str | None = None
    verbose: bool = False
    say: Callable[[str], None] = lambda text: None

    def __call__(self, job: Job, blocks: Sequence[Block], told: Told) -> Reports:
        with remote_client(self.address, self.file, verbose=self.verbose) as client:
            where = client.scheduler.address
            self.say(f"scheduler {where}; dashboard: {client.dashboard_link}")
            if is_open(where):
                self.say(f"{where} is not encrypted: whoever reaches it can run code there")
            yield from Spread(client)(job, blocks, told)
