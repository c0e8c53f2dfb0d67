"""What a recording came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Checkpoints by what became of them, bytes, and the seconds training waited."""

    recorded: int  # coded by the writer
    raw: int  # written by the trainer, because the ring was full
    dropped: int
    bytes: int  # of the weights
    stored_bytes: int  # of the files
    failures: int
    seconds: float  # inside the recorder's calls
    coding: bool = False  # the writer codes the raw ones when training pauses and at the end

    @classmethod
    def of(cls, counts: Mapping[str, int], failures: int, seconds: float) -> Summary:
        names = ("recorded", "raw", "dropped", "bytes", "stored_bytes")
        numbers = {name: int(counts.get(name, 0)) for name in names}
        coding = bool(counts.get("coding")) and numbers["raw"] > 0
        return cls(**numbers, failures=failures, seconds=seconds, coding=coding)

    @property
    def ratio(self) -> float:
        """Bytes of the weights per stored byte; NaN where nothing is stored."""
        return self.bytes / self.stored_bytes if self.stored_bytes else float("nan")

    def __str__(self) -> str:
        return (
            f"{self.recorded} checkpoints recorded, {self.raw} raw"
            + " (coded in pauses and at the end)" * self.coding
            + f", {self.dropped} dropped; "
            f"{self.stored_bytes / 1e6:.1f} MB, ratio {self.ratio:.2f}; "
            f"{self.seconds:.2f} s in the loop"
            + (f"; {self.failures} faults" * bool(self.failures))
        )
