"""A guard: blocks run in a forked child, so that what kills it does not kill the analysis.

A fork costs milliseconds and shares what is loaded. The child says through a shared page which
row it is at, and through a pipe what it has finished.
"""

from __future__ import annotations

import logging
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
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport

CAN_FORK = sys.platform == "linux"  # elsewhere system libraries do not survive it
POLL = 0.1
_PAGE = struct.Struct("qq")  # the row being worked on (-1: none), rows begun so far

Told = Callable[[int], None]  # rows begun since the last call


class Died(Exception):
    """The child ended without a word: at which row of which block, and of what."""

    def __init__(self, block: Block, row: int, why: str) -> None:
        super().__init__(why)
        self.block, self.row, self.why = block, row, why


def run_guarded(
    job: Job, blocks: Sequence[Block], told: Told
) -> Generator[BlockReport, None, None]:
    """Run the blocks in a child; raises Died with the block and row that ended it."""
    page = mmap.mmap(-1, _PAGE.size)
    page[:] = _PAGE.pack(-1, 0)
    reader, writer = Pipe(duplex=False)
    child = _fork()
    if child == 0:
        reader.close()
        _child(job, blocks, page, writer)  # does not return
    writer.close()
    try:
        yield from _parent(job, blocks, page, reader, child, told)
    finally:
        os.kill(child, signal.SIGKILL)  # not yet reaped, so the number is still its own
        os.waitpid(child, 0)
        reader.close()
        page.close()


def _parent(
    job: Job, blocks: Sequence[Block], page: mmap.mmap, reader: Connection, child: int, told: Told
) -> Generator[BlockReport, None, None]:
    seen, since, done = (-1, 0), time.monotonic(), 0
    while done < len(blocks):
        ready = reader.poll(POLL)
        now = _PAGE.unpack(page[:])
        if now != seen:
            told(now[1] - seen[1])
            seen, since = now, time.monotonic()
        if ready:
            try:
                message = reader.recv()
            except EOFError:
                raise Died(blocks[done], now[0], _cause(child)) from None
            if isinstance(message, BaseException):
                raise message
            done, since = done + 1, time.monotonic()
            yield message
        elif time.monotonic() - since > job.limits.seconds:
            raise Died(blocks[done], now[0], f"no end after {job.limits.seconds:.0f} s")


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of threads: none of ours holds a lock that the child takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(job: Job, blocks: Sequence[Block], page: mmap.mmap, writer: Connection) -> None:
    code = 1
    try:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        from ndt_offline.replay.block import BlockRunner

        # Connections of the parent's are not ours to close, and not worth a word.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
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
            writer.send(_portable(error))
        code = 0
    finally:
        os._exit(code)  # without the parent's exit handlers and buffers


def _portable(error: Exception) -> Exception:
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
