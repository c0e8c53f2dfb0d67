"""Watching a run that is still being trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.replay.mark import known_as
from ndt_offline.run.reader import Run, open_run
from ndt_offline.storage.location import is_remote, locate

POLL = 2.0  # seconds between looks at the journals
IDLE = 1800.0  # seconds without news after which a training is taken for dead


def follow(
    path: str | Path,
    poll: float = POLL,
    idle: float = IDLE,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Run]:
    """Yield the run at once, and again whenever it has other checkpoints: new ones, or rounded.

    Ends when its newest attempt was closed, or after `idle` seconds without news. A run that has
    no checkpoint yet is waited for. One that could be read and cannot be now is looked at again;
    what is wrong is raised when the time is over.
    """
    seen: int | None = None
    quiet, fault = 0.0, None
    while quiet <= idle:
        try:
            news, fault = _look(path), None
        except (OSError, DamagedError) as error:
            if seen is None:
                raise
            news, fault = None, error
        if news is not None and news[0] != seen:
            seen, quiet = news[0], 0.0
            yield news[1]
            continue  # what came meanwhile is looked for at once
        if news is not None and is_closed(news[1]):
            return
        sleep(poll)
        quiet += poll
    if fault is not None:
        raise fault


def is_closed(run: Run) -> bool:
    """Whether the newest attempt said that it is finished; folders of others never say so."""
    if run.foreign or not run.attempts:
        return False
    return run.attempts[-1].closed


def _look(path: str | Path) -> tuple[int, Run] | None:
    """(hash of what the checkpoints are, run), or None where there is no checkpoint yet."""
    try:
        run = open_run(path)
    except UsageError:
        if not locate(path).is_dir():
            raise
        return None
    # An object is whole from the start, and every stamp of one would be a request.
    known = attrgetter("content") if is_remote(run.path) else known_as
    return hash(tuple((entry.step, known(entry)) for entry in run.entries)), run
