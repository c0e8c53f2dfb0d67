"""Where an analysis runs, as options of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ndt_offline.execute.replay_all import Executor
    from ndt_offline.replay.setup import Parameters

OPTIONS = (
    click.option(
        "--workers", type=click.IntRange(1), help="Processes (default: one per core if it pays)."
    ),
    click.option(
        "--device",
        metavar="DEVICE",
        default="cpu",
        show_default=True,
        help="What replays: cpu, cuda (every GPU), cuda:N, or auto.",
    ),
    click.option(
        "--scheduler",
        envvar=["NDT_SCHEDULER", "DASK_SCHEDULER_ADDRESS"],
        metavar="ADDRESS",
        help="Use a Dask cluster: tcp://HOST:8786, tls://HOST:8786.",
    ),
    click.option(
        "--scheduler-file",
        type=click.Path(),
        help="Use the Dask cluster of this file; waited for at most a minute.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, in numbers, and stop."),
    click.option(
        "--watch",
        is_flag=True,
        help="Follow a run while it trains: until it is closed, a --fail-on rule is met, or "
        "nothing came for 30 minutes.",
    ),
    click.option("-v", "--verbose", is_flag=True, help="Show the logs of workers."),
)


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; `Where.of` takes them out of its keywords again."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Where:
    """The choices of a user."""

    workers: int | None
    device: str
    scheduler: str | None
    scheduler_file: str | None
    dry_run: bool
    watch: bool
    verbose: bool

    @classmethod
    def of(cls, options: dict[str, Any]) -> Where:
        """Take them out of a command's options; UsageError for what does not go together."""
        from ndt_offline.errors import UsageError
        from ndt_offline.replay.device import check_device

        where = cls(**{name: options.pop(name) for name in cls.__dataclass_fields__})
        check_device(where.device)
        if where.scheduler_file and where.scheduler:
            raise UsageError("--scheduler and --scheduler-file name two clusters", remedy="one")
        if where.workers and (where.scheduler or where.scheduler_file):
            what = "--workers is for this machine; a scheduler has its own"
            raise UsageError(what, remedy="leave --workers out")
        return where

    def executor(self, say: Callable[[str], None]) -> Executor:
        """What runs the blocks."""
        from ndt_offline.execute.cluster import check_address
        from ndt_offline.execute.replay_all import Automatic, Cluster

        if self.scheduler_file:
            return Cluster(file=self.scheduler_file, verbose=self.verbose, say=say)
        if self.scheduler:
            return Cluster(check_address(self.scheduler), verbose=self.verbose, say=say)
        return Automatic(self.workers, self.verbose, say)

    def rounds(self, path: str) -> Iterator[None]:
        """Once, or with --watch as often as the run has news."""
        if not self.watch:
            yield
            return
        from ndt_offline.execute.watch import follow

        for _ in follow(path):
            yield

    def outlook(
        self,
        path: str,
        out: str | None,
        parameters: Parameters,
        question: dict[str, Any],
        measures: Sequence[str] | None = None,
    ) -> None:
        """Print what --dry-run promises. Raises RefusedError where it cannot fit."""
        from ndt_offline.execute.estimate import check_fits
        from ndt_offline.execute.outlook import foresee
        from ndt_offline.execute.question import Question
        from ndt_offline.report.table import printable

        seen = foresee(path, out, parameters, Question(**question), measures, self.device)
        for line in seen.lines(self.workers):
            click.echo(printable(line))
        check_fits(seen.need, seen.store)
