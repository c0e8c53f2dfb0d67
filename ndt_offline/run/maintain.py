"""Looking after a run: verify what was recorded, and who is at work in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.run.attempt import Entry, Problem, folders
from ndt_offline.run.lock import Lock
from ndt_offline.run.reader import Decoder, Run


def verify(run: Run) -> Iterator[Problem]:
    """Decode every checkpoint, hidden ones too, both checksums checked; yield what is wrong.

    Steps whose weights were dropped are no damage: the journal says so, and `Entry.path` is None.
    """
    if run.foreign:
        yield from _verified(run, list(run.entries))
    for attempt in run.attempts:
        yield from _verified(run, list(attempt.entries.values()))
        known = {entry.step for entry in attempt.entries.values()}
        for path in sorted((attempt.path / "raw").glob("step_*.safetensors")):
            digits = path.stem.removeprefix("step_")
            if not digits.isdecimal() or int(digits) not in known:
                what = "is not in the journal; the next start of the training takes it in"
                yield Problem(what, str(path), remedy=f"ndt-offline pack {run.path}")


def _verified(run: Run, entries: list[Entry]) -> Iterator[Problem]:
    decoder = Decoder(run.path, entries)
    for entry in sorted((e for e in entries if e.path), key=lambda e: e.step):
        try:
            decoder.read(entry)
        except NdtError as error:
            yield Problem(error.what, str(error.path or entry.path), entry.step)


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run's locks while its files change; UsageError where a training is at work."""
    with ExitStack() as stack:
        locks = [run / "trainer.lock"]
        locks += [path / "writer.lock" for path in folders(run)]
        for path in locks:
            lock = Lock(path)
            if not lock.take():
                raise UsageError(
                    "a training is recording into this run, or its writer still works",
                    path=run,
                    remedy="wait until it has ended",
                )
            stack.callback(lock.drop)
        yield
