"""Replaying blocks: where they run is behind one interface, what they do is in `replay.block`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from ndt_offline.execute.ahead import Ahead, warm_up
from ndt_offline.execute.cluster import is_open, local_client, remote_client
from ndt_offline.execute.estimate import Estimate, best_workers, duration
from ndt_offline.execute.guard import CAN_FORK, Died, Guard, Told
from ndt_offline.execute.quarantine import isolate
from ndt_offline.execute.spread import Spread
from ndt_offline.replay.device import gpus
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport

WORTH = 8.0  # seconds of work below which a cluster, which takes seconds to start, does not pay
EARLY = 8  # rows after which that is guessed
SLOWEST = 100  # a checkpoint may take this many times what the first ones took
PER_GPU = 4  # blocks for each of several GPUs, whose processes take seconds to start
Reports = Generator[BlockReport, None, None]


class Executor(Protocol):
    """Runs every block, in any order, and yields a report as each is finished.

    Closing the generator stops the work; what is finished is in the store.
    """

    def __call__(self, job: Job, blocks: Sequence[Block], told: Told) -> Reports: ...


def in_process(job: Job, blocks: Sequence[Block], told: Told) -> Reports:
    """One after another: what a short analysis wants. A block that kills is run again alone."""
    yield from _one_by_one(job, blocks, told)


def _one_by_one(
    job: Job, blocks: Sequence[Block], told: Told, cluster: Ahead | None = None
) -> Reports:
    """Until all are done or, where one is given, until the cluster is ready."""
    from threadpoolctl import threadpool_limits

    # One BLAS thread: more never helped here, and cost up to 8 times under load.
    with threadpool_limits(limits=1):
        # What uses a GPU cannot be forked, and a process of its own takes seconds per block.
        if not CAN_FORK or job.device != "cpu":
            if cluster:
                cluster.start()
            with closing(_here(job, blocks, told)) as reports:
                for report in reports:
                    yield report
                    if cluster and cluster.ready:
                        return
            return
        left = list(blocks)
        while left and not (cluster and cluster.ready):
            guard, died = Guard(job, left), False  # before the cluster has threads: it forks
            try:
                if cluster:
                    cluster.start()
                for report in guard.reports(told, lambda: bool(cluster and cluster.ready)):
                    left.pop(0)
                    yield report
            except Died:
                died = True
            finally:
                guard.close()
            if died:  # and gone: one that hangs would go on beside its block
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

    A cluster starts while the child goes on, and takes over what is left then, the block that the
    child is at included: a block of large checkpoints takes longer than a cluster to start.
    workers: processes; None is one per core as far as memory holds. 1 never starts a cluster.
    say: told what was chosen, and the dashboard's address.
    """

    workers: int | None = None
    verbose: bool = False
    say: Callable[[str], None] = lambda text: None

    def __call__(self, job: Job, blocks: Sequence[Block], told: Told) -> Reports:
        if job.device != "cpu":
            yield from self._on_gpus(job, blocks, told)
            return
        first, rest = blocks[:1], blocks[1:]
        left = sum(len(block.todo) for block in rest)
        spread = best_workers(Estimate(left, len(rest), 0, 0), self.workers) > 1
        pace = _Pace(told, left if spread else 0)
        reports = list(_one_by_one(job, first, pace))
        yield from reports
        rows = sum(report.rows for report in reports)
        each = sum(report.seconds for report in reports) / max(rows, 1)
        peak = max(report.peak for report in reports)
        count = best_workers(Estimate(left, len(rest), peak, 0), self.workers)
        patience = min(job.limits.seconds, max(120.0, SLOWEST * each))
        job = replace(job, limits=replace(job.limits, seconds=patience))
        if count < 2 or left * each < WORTH:
            yield from _one_by_one(job, rest, told)
            return
        about = f"{count} processes for about {duration(left * each / count)} of work"
        with closing(Ahead(count, self.verbose)) as cluster:
            done = set()
            for report in _one_by_one(job, rest, told, cluster):
                done.add(report.start)
                yield report
            rest = [block for block in rest if block.start not in done]
            if rest:
                client = cluster.client
                self.say(f"{about}; dashboard: {client.dashboard_link}")
                yield from Spread(client)(job, rest, told)

    def _on_gpus(self, job: Job, blocks: Sequence[Block], told: Told) -> Reports:
        """In this process, or in one per GPU where there is enough for several."""
        names = gpus() if job.device == "cuda" else []
        count = min(len(names), self.workers or len(names), len(blocks) // PER_GPU)
        if count < 2:
            yield from _one_by_one(job, blocks, told)
            return
        with local_client(count, names[:count], verbose=self.verbose) as client:
            self.say(f"{count} GPUs; dashboard: {client.dashboard_link}")
            yield from Spread(client)(job, blocks, told)


class _Pace:
    """Passes on how many rows are begun; as soon as a cluster seems to be worth it, warms it up."""

    def __init__(self, told: Told, left: int) -> None:
        self._told, self._left = told, left
        self._begun, self._since, self._warm = 0, 0.0, False

    def __call__(self, rows: int) -> None:
        self._told(rows)
        now = time.monotonic()
        if not self._begun:
            self._since = now  # the first row may be slow: it loads what the others have then
        self._begun += rows
        seconds = (now - self._since) / self._begun * self._left
        if self._begun >= EARLY and not self._warm and seconds >= WORTH:
            self._warm = True
            warm_up()


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
