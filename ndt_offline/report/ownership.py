"""Which HTML files are ours to replace: those that say so in their head."""

from __future__ import annotations

from pathlib import Path

from ndt_offline.errors import UsageError

MARK = '<meta name="generator" content="ndt-offline'
HEAD = 4096  # bytes in which it stands


def check_replaceable(path: Path) -> None:
    """UsageError where something stands at the path of a report that is none of ours."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if MARK.encode() in file.read(HEAD):
                return
    remedy = "move it away, give another --out, or --no-report"
    raise UsageError("is not a report of ndt-offline: it is not replaced", path=path, remedy=remedy)
