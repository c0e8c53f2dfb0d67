"""The writing side of a recording: encodes, writes, journals. Loads no torch.

Order matters: the file first, then its journal line. What has no line does not exist.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndt_offline.errors import UsageError
from ndt_offline.run import checkpoint, durable, journal
from ndt_offline.run.layout import Layout, Vectors
from ndt_offline.run.reader import FORMAT_VERSION


class Writer:
    """The only writer of one attempt's checkpoints and journal."""

    def __init__(self, run: Path, attempt: Path) -> None:
        self.run, self.attempt = run, attempt
        self.stored_bytes = self.raw_bytes = self.written = 0
        self._layouts: set[str] = set()

    def write(
        self, step: int, layout: Layout, vectors: Vectors, scalars: Mapping[str, Any]
    ) -> None:
        """Store one checkpoint durably."""
        self._keep_layout(layout)
        done = checkpoint.write_encoded(self.attempt, step, layout, vectors)
        record = {
            "kind": "checkpoint",
            "step": step,
            "file": done.file,
            "size": done.size,
            "file_crc": done.file_crc,
            "content": done.content,
            **scalars,
            "time": round(time.time(), 3),
        }
        journal.append(self.attempt / "journal.jsonl", record)
        self.written += 1
        self.stored_bytes += done.size
        self.raw_bytes += layout.nbytes

    def close(self) -> None:
        record = {"kind": "close", "written": self.written, "time": round(time.time(), 3)}
        journal.append(self.attempt / "journal.jsonl", record)

    def _keep_layout(self, layout: Layout) -> None:
        if layout.key in self._layouts:
            return
        path = self.run / "layouts" / f"{layout.key}.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            durable.write(path, [layout.to_json().encode()])
        self._layouts.add(layout.key)


def open_attempt(run: Path, about: Mapping[str, Any]) -> Path:
    """Make the next attempt's folder; an exclusive mkdir decides between two that start at once."""
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "run.json").exists():
        if any(run.glob("*.safetensors")):
            raise UsageError(
                "holds other safetensors files", path=run, remedy="record into an empty directory"
            )
        text = json.dumps({"format": FORMAT_VERSION, "run": f"{time.time_ns():x}"}) + "\n"
        durable.write(run / "run.json", [text.encode()])
    folder = run / "attempts"
    folder.mkdir(exist_ok=True)
    number = 1 + max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0)
    while True:
        attempt = folder / f"{number:04d}"
        try:
            attempt.mkdir()
            break
        except FileExistsError:
            number += 1
    (attempt / "checkpoints").mkdir()
    text = json.dumps({"attempt": number, **about}, indent=1) + "\n"
    durable.write(attempt / "attempt.json", [text.encode()])
    return attempt
