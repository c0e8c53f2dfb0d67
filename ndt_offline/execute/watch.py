"""Watching a run that is still being trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ndt_offline.errors import UsageError
from ndt_offline.run.reader import Run, open_run
from ndt_offline.storage.location import locate

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
    no checkpoint yet is waited for.
    """
    seen: int | None = None
    quiet = 0.0
    while quiet <= idle:
        news = _look(path)
        if news is not None and news[0] != seen:
            seen, quiet = news[0], 0.0
            yield news[1]
            continue  # what came meanwhile is looked for at once
        if news is not None and is_closed(news[1]):
            return
        sleep(poll)
        quiet += poll


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
    return hash(tuple((entry.step, entry.content) for entry in run.entries)), run
