"""A guard: blocks run in a forked child, so that what kills it does not kill the analysis.

A fork costs milliseconds and shares what is loaded. The child says through a shared page which
row it is at, and through a pipe what it has finished.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ndt_offline.errors import NdtError
from ndt_offline.heap import keep_freed
from ndt_offline.replay.footprint import forget_parent
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport

CAN_FORK = sys.platform == "linux"  # elsewhere system libraries do not survive it
POLL = 0.1
_PAGE = struct.Struct("qq")  # the row being worked on (-1: none), rows begun so far

Told = Callable[[int], None]  # rows begun since the last call; fewer than none: they were lost


class Died(Exception):
    """The child ended without a word: at which row of which block, and of what."""

    def __init__(self, block: Block, row: int, why: str) -> None:
        super().__init__(why)
        self.block, self.row, self.why = block, row, why


class Guard:
    """A child that runs blocks one after another; it is forked here and now."""

    def __init__(self, job: Job, blocks: Sequence[Block]) -> None:
        import ndt_offline.replay.block  # noqa: F401  (once, and not in every child)

        self._job, self._blocks = job, tuple(blocks)  # the caller's list loses what is done
        self._page = mmap.mmap(-1, _PAGE.size)
        self._page[:] = _PAGE.pack(-1, 0)
        self._reader, writer = Pipe(duplex=False)
        self._child = fork()
        if self._child == 0:
            self._reader.close()
            _child(job, blocks, self._page, writer)  # does not return
        writer.close()

    def reports(
        self, told: Told, enough: Callable[[], bool] = lambda: False
    ) -> Generator[BlockReport, None, None]:
        """A report per block; ends once there is `enough`, with the block that is half done lost.

        Raises Died with the block and row that ended the child.
        """
        seen, since, done, begun = (-1, 0), time.monotonic(), 0, 0
        while done < len(self._blocks):
            ready = self._reader.poll(POLL)
            now = _PAGE.unpack(self._page[:])
            if now != seen:
                told(now[1] - seen[1])
                seen, since = now, time.monotonic()
            if not ready and now[0] >= 0 and enough():
                told(begun - now[1])
                return  # nothing is being written
            if ready:
                message = self._receive(self._blocks[done], now[0])
                done, since, begun = done + 1, time.monotonic(), now[1]
                yield message
            elif time.monotonic() - since > self._job.limits.seconds:
                why = f"no end after {self._job.limits.seconds:.0f} s"
                raise Died(self._blocks[done], now[0], why)

    def _receive(self, block: Block, row: int) -> BlockReport:
        try:
            message = self._reader.recv()
        except EOFError:
            raise Died(block, row, _cause(self._child)) from None
        if isinstance(message, BaseException):
            raise message
        return message

    def close(self) -> None:
        os.kill(self._child, signal.SIGKILL)  # not yet reaped, so the number is still its own
        os.waitpid(self._child, 0)
        self._reader.close()
        self._page.close()


def fork() -> int:
    """Fork; the child must not touch what other threads of the parent use."""
    with warnings.catch_warnings():
        # Python warns of threads: none of ours holds a lock that the child takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(job: Job, blocks: Sequence[Block], page: mmap.mmap, writer: Connection) -> None:
    code = 1
    try:
        forget_parent()
        keep_freed()
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        from ndt_offline.replay.block import BlockRunner

        begun = 0

        def starting(row: int) -> None:
            nonlocal begun
            begun += row >= 0
            page[:] = _PAGE.pack(row, begun)

        try:
            runner = BlockRunner(job)
            for block in blocks:
                writer.send(runner(block, starting))
        except Exception as error:
            writer.send(portable(error))
        code = 0
    finally:
        os._exit(code)  # without the parent's exit handlers and buffers


def portable(error: Exception) -> Exception:
    """The error, or where it cannot be pickled its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return NdtError(f"{type(error).__name__}: {error}")
    return error


def _cause(child: int) -> str:
    """Of what it died; it stays a zombie, to be reaped by the one who forked it."""
    end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    code = 1 if end is None else end.si_status
    return describe_end(code if end is None or end.si_code == os.CLD_EXITED else -code)


def describe_end(code: int) -> str:
    """What an exit code says of the end of a process."""
    if code >= 0:
        return f"its process ended with code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"its process was killed by {name}" + (
            " (out of memory?)" if -code == signal.SIGKILL else ""
        )
    return f"its process was killed by signal {-code}"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent is gone (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
