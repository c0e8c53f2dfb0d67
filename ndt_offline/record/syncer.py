"""Making files durable without making the writer wait: fsync in a thread of its own.

Order within a batch: the files, their folder, then the journal that speaks of them. A power cut
before loses at most the batch, and the journal's checksums tell.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from ndt_offline.run import durable

EVERY = 5.0  # seconds


class Syncer:
    """Collects written files, and syncs them when a segment ends or some seconds have passed."""

    def __init__(self, journal: Path, failed: Callable[[OSError], None]) -> None:
        self._journal, self._failed = journal, failed
        self._files: list[Path] = []
        self._last = time.monotonic()
        self._batches: SimpleQueue[list[Path] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="ndt-offline-sync")
        self._thread.start()

    def add(self, path: Path) -> None:
        self._files.append(path)
        if time.monotonic() - self._last > EVERY:
            self.flush()

    def flush(self) -> None:
        """Hand over what was collected."""
        if self._files:
            self._batches.put(self._files)
        self._files, self._last = [], time.monotonic()

    def close(self) -> None:
        """Sync what is left, and wait for it."""
        self.flush()
        self._batches.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (files := self._batches.get()) is not None:
            try:
                durable.sync(files)
                durable.sync([self._journal])
            except OSError as error:
                self._failed(error)
