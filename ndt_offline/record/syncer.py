"""Making files durable without making the writer wait: fsync in a thread of its own.

Order within a batch: the files, their folder, then the journal that speaks of them. A power cut
before loses at most the batch, and the journal's checksums tell.
"""

from __future__ import annotations

import os
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
                sync_files(files)
                sync_files([self._journal])
            except OSError as error:
                self._failed(error)


def sync_files(files: list[Path]) -> None:
    """fsync of files and of the folders they lie in; those that are gone by now are left out."""
    for path in files:
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for folder in {path.parent for path in files}:
        durable.sync_folder(folder)
