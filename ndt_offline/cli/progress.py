"""Progress that a person can trust: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from ndt_offline.report.table import printable

BETWEEN = 10.0  # seconds between plain lines


class Bar:
    """Told what is done, it says so on standard error, with the rate and the time that is left.

    On a terminal a bar that goes away at the end; in a file a line every ten seconds, so that
    short work prints nothing. quiet: nothing at all.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._console = quiet, Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal and not quiet
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        last = TextColumn("{task.fields[pace]}")
        self._progress = Progress(
            *columns, last, console=self._console, transient=True, disable=not self._live
        )
        self._task: TaskID | None = None
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def told(self, what: str, done: int, total: int) -> None:
        """`what` is going on, `done` of `total` (0: not countable)."""
        now = time.monotonic()
        if not done:
            self._started = now
        pace = pace_of(done, total, now - self._started)
        if self._live:
            if self._task is None:
                self._task = self._progress.add_task(what, total=total or None, pace=pace)
            self._progress.update(
                self._task, description=what, completed=done, total=total or None, pace=pace
            )
        elif not self._quiet and done and now - self._told >= BETWEEN:
            self._told = now
            self.say(f"{what}: {done} of {total} checkpoints, {pace}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(Text(printable(text)), soft_wrap=True)


def pace_of(done: int, total: int, seconds: float) -> str:
    """Checkpoints per second and the time left, as far as they are known."""
    if not done or seconds <= 0:
        return ""
    rate = done / seconds
    left = (total - done) / rate
    digits = 0 if rate >= 10 else 2
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{rate:.{digits}f}/s, {clock} left"
