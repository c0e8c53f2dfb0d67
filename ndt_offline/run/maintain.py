"""Looking after a run: verify what was recorded."""

from __future__ import annotations

from collections.abc import Iterator

from ndt_offline.errors import NdtError
from ndt_offline.run.attempt import Problem
from ndt_offline.run.reader import Decoder, Run


def verify(run: Run) -> Iterator[Problem]:
    """Decode every visible checkpoint, both checksums checked, and yield what is wrong."""
    decoder = Decoder(run.path, run.entries)
    for entry in run.entries:
        try:
            decoder.read(entry)
        except NdtError as error:
            yield Problem(error.what, str(error.path or entry.path), entry.step)
