"""Ahead of time: a local cluster that starts while this process still works by itself."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from ndt_offline.execute.cluster import PRELOADED, THREADS, local_client


class Ahead:
    """A local cluster whose start takes seconds, in a thread, so that nobody waits for it."""

    def __init__(self, workers: int, verbose: bool = False) -> None:
        self._workers, self._verbose = workers, verbose
        self._stack, self._thread = ExitStack(), ThreadPoolExecutor(1)
        self._started: Future[Any] | None = None

    def start(self) -> None:
        """Begin, if that has not been done. Whoever forks does so before."""
        if self._started is None:
            self._started = self._thread.submit(self._start)

    def _start(self) -> Any:
        return self._stack.enter_context(local_client(self._workers, verbose=self._verbose))

    @property
    def ready(self) -> bool:
        """Whether it is there, or will never be."""
        return self._started is not None and self._started.done()

    @property
    def client(self) -> Any:
        """Its client; waited for. Raises what the start raised."""
        self.start()
        assert self._started is not None
        return self._started.result()

    def close(self) -> None:
        self._thread.shutdown()
        self._stack.close()


def warm_up() -> None:
    """Start the process that workers will be forked from: it loads libraries meanwhile (Linux).

    It takes no thread and nothing else of this process. Not used, it ends with this process.
    """
    if sys.platform != "linux":
        return
    from multiprocessing import forkserver, get_context

    os.environ.update(THREADS)
    get_context("forkserver").set_forkserver_preload(["distributed", *PRELOADED])
    forkserver.ensure_running()
