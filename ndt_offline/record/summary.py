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

    @classmethod
    def of(cls, counts: Mapping[str, int], failures: int, seconds: float) -> Summary:
        names = ("recorded", "raw", "dropped", "bytes", "stored_bytes")
        return cls(**{n: int(counts.get(n, 0)) for n in names}, failures=failures, seconds=seconds)

    @property
    def ratio(self) -> float:
        """Bytes of the weights per stored byte; NaN where nothing is stored."""
        return self.bytes / self.stored_bytes if self.stored_bytes else float("nan")

    def __str__(self) -> str:
        return (
            f"{self.recorded} checkpoints recorded, {self.raw} raw, {self.dropped} dropped; "
            f"{self.stored_bytes / 1e6:.1f} MB, ratio {self.ratio:.2f}; "
            f"{self.seconds:.2f} s in the loop"
            + (f"; {self.failures} faults" * bool(self.failures))
        )
