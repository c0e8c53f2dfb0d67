"""Quarantine: a block that killed its process, run again alone with limits on memory and time.

    python -m ndt_offline.execute.quarantine       the child: a job on stdin, rows on stdout

A checkpoint that ends the child is given up and recorded as failed with the reason; the rest of
the block is computed as if it were not there.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from typing import IO, Any

from ndt_offline.errors import NdtError
from ndt_offline.execute.guard import describe_end, die_with_parent
from ndt_offline.replay.job import Job
from ndt_offline.replay.mark import Block, BlockReport

LOADING = 300.0  # seconds for a child to load torch on a busy machine
STUBBORN = 5  # deaths in a block without one row that succeeds: it is not the checkpoints
FLOOR = 4 * 2**30  # address space that libraries take before anything is computed


def isolate(job: Job, block: Block) -> BlockReport:
    """Run a block in children of its own until it is through, giving up what kills them.

    Raises NdtError where nothing in the block can be computed, or a child cannot even start.
    """
    given_up = dict(block.given_up)
    blank: Counter[str] = Counter()
    while True:
        row, begun, end = _run(job, replace(block, given_up=tuple(given_up.items())))
        if isinstance(end, BlockReport):
            return end
        if isinstance(end, BaseException):
            raise end
        where = f"rows {block.start} to {block.stop - 1}"
        if row is None:
            blank[end] += 1
            if blank.total() > 2:
                raise NdtError(f"a process for {where} does not come up: {end}", path=job.store)
            continue
        entry = block.entries[row - block.start]
        given_up[row] = f"{entry.path}: {end}"
        if len(given_up) >= STUBBORN and begun <= len(given_up):
            raise NdtError(
                f"every checkpoint of {where} ends its process: {end}",
                path=entry.path,
                step=entry.step,
                remedy="more memory, or --layers without the largest ones",
            )


def _run(job: Job, block: Block) -> tuple[int | None, int, Any]:
    """One child: (row it died at, rows begun, report or error or the reason of its death)."""
    command = [sys.executable, "-m", "ndt_offline.execute.quarantine"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((job, block), child.stdin)
            child.stdin.close()
        messages: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=_listen, args=(child.stdout, messages), daemon=True).start()
        row, begun, limit = None, 0, LOADING
        try:
            while True:
                message = messages.get(timeout=limit)
                if message is None:
                    return row, begun, describe_end(child.wait())
                if not isinstance(message, int):
                    return row, begun, message
                row = message if message >= 0 else None
                begun += message >= 0
                limit = job.limits.seconds
        except queue.Empty:
            return row, begun, f"no end after {limit:.0f} s"
        finally:
            child.kill()


def _listen(pipe: IO[bytes], messages: queue.Queue[Any]) -> None:
    with contextlib.suppress(EOFError, pickle.UnpicklingError, ValueError):
        while True:
            messages.put(pickle.load(pipe))
    messages.put(None)


def _limit_memory(limit: int) -> None:
    """At most this many bytes beyond what is loaded: a bomb then fails alone."""
    if sys.platform != "linux":
        return
    import resource

    if not limit:
        with open("/proc/meminfo") as file:
            free = next(line for line in file if line.startswith("MemAvailable"))
        limit = int(free.split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit + FLOOR, limit + FLOOR))


def main() -> None:
    die_with_parent()
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # what libraries print must not mix with the messages
    job, block = pickle.load(sys.stdin.buffer)

    def say(message: Any) -> None:
        pickle.dump(message, out)
        out.flush()

    from ndt_offline.replay.block import BlockRunner

    try:
        runner = BlockRunner(job)  # loads the graph and the probe
        say(-1)  # from here on the clock runs
        _limit_memory(job.limits.memory)
        say(runner(block, say))
    except Exception as error:
        say(error if isinstance(error, NdtError | OSError) else NdtError(f"{error!r}"))


if __name__ == "__main__":
    main()
