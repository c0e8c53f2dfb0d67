"""Blocks spread over a Dask cluster, and what becomes of those whose workers die.

Small tasks out, small reports back: results go from worker to store. A task that was lost, run
twice or stolen does no harm, so every doubt is answered by submitting it again.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ndt_offline.errors import NdtError
from ndt_offline.execute.cluster import AGAIN
from ndt_offline.execute.guard import Told
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport

TICK = 1.0  # seconds between looks at the cluster's health
GRACE = 90.0  # seconds without scheduler or workers before it is given up
ROUNDS = 50  # times that one block is submitted at most
AHEAD = 3  # blocks submitted per worker


@dataclass
class _Flight:
    """A block on its way: how often it was sent, and whether it runs alone by now."""

    block: Block
    sent: int = 0
    alone: bool = False


@dataclass
class Spread:
    """An executor that uses the cluster of a `distributed.Client`."""

    client: Any
    grace: float = GRACE
    _ended: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)

    def __call__(
        self, job: Job, blocks: Sequence[Block], told: Told
    ) -> Generator[BlockReport, None, None]:
        waiting = deque(_Flight(block) for block in blocks)
        flying: dict[str, tuple[Any, _Flight]] = {}
        health = _Health(self.client, self.grace)
        try:
            while waiting or flying:
                while waiting and len(flying) < health.room:
                    self._send(job, waiting.popleft(), flying)
                try:
                    key = self._ended.get(timeout=TICK)
                except queue.Empty:
                    health.check()
                    continue
                future, flight = flying.pop(key, (None, None))
                if future is None or flight is None:
                    continue
                report = self._report(future, flight)
                if report is None:
                    waiting.appendleft(flight)
                    health.check()
                    continue
                health.good()
                told(report.rows)
                yield report
        finally:
            _drop([future for future, _ in flying.values()])

    def _send(self, job: Job, flight: _Flight, flying: dict[str, tuple[Any, _Flight]]) -> None:
        from ndt_offline.execute.task import isolate_block, replay_block

        flight.sent += 1
        if flight.sent > ROUNDS:
            raise NdtError(
                f"rows {flight.block.start} to {flight.block.stop - 1} were lost {ROUNDS} times: "
                "workers die faster than they work",
                path=job.store,
                remedy=AGAIN,
            )
        task: Callable[..., BlockReport] = isolate_block if flight.alone else replay_block
        key = f"ndt-{task.__name__}-{job.token[:12]}-{flight.block.start}-{flight.sent}"
        future = self.client.submit(task, job, flight.block, key=key, pure=False)
        flying[key] = (future, flight)
        future.add_done_callback(lambda done: self._ended.put(done.key))

    def _report(self, future: Any, flight: _Flight) -> BlockReport | None:
        """The report, or None where the block must be sent again."""
        from distributed import KilledWorker

        try:
            # A finished result may be lost again with its worker; then this waits for it.
            return future.result(timeout=10)
        except KilledWorker:
            # Several workers died of it, or with it. Alone it endangers none; if even so its
            # worker died, the death came from outside.
            flight.alone = not flight.alone
        except Exception as error:
            if isinstance(error, NdtError) or (
                isinstance(error, OSError) and not _is_transient(error)
            ):
                raise
            if not _is_transient(error):
                rows = f"rows {flight.block.start} to {flight.block.stop - 1}"
                raise NdtError(f"{rows}: {error!r}") from error
        _drop([future])
        return None


class _Health:
    """What the driver can see of the cluster, and how long it has been bad."""

    def __init__(self, client: Any, grace: float) -> None:
        self._client, self._grace, self._since = client, grace, time.monotonic()
        self.room = AHEAD * 2
        self.check()

    def good(self) -> None:
        self._since = time.monotonic()

    def check(self) -> None:
        """Raise NdtError where scheduler or workers have been missing for too long."""
        workers = _workers(self._client)
        if workers:
            self.room = AHEAD * len(workers)
            self.good()
            return
        gone = time.monotonic() - self._since
        if self._client.status == "closed" or gone > self._grace:
            lost = "the scheduler is gone" if workers is None else "no worker is left"
            what = f"{lost}, for {gone:.0f} s now; finished blocks are kept"
            raise NdtError(what, remedy=AGAIN)


def _workers(client: Any) -> dict[str, int] | None:
    """{address: threads} of the workers now, or None where no scheduler answers."""
    if client.status != "running":
        return None
    try:
        return dict(client.sync(client.scheduler.ncores, callback_timeout=10))
    except (OSError, TimeoutError):
        return None


def _is_transient(error: Exception) -> bool:
    from concurrent.futures import CancelledError

    from distributed.comm import CommClosedError

    names = ("FutureCancelledError", "FuturesCancelledError", "Reschedule", "NoValidWorkerError")
    kinds = (CancelledError, CommClosedError, TimeoutError, ConnectionError)
    return isinstance(error, kinds) or type(error).__name__ in names


def _drop(futures: list[Any]) -> None:
    for future in futures:
        try:
            future.cancel()
            future.release()
        except Exception:  # the client may be gone by now; the futures then are too
            return
