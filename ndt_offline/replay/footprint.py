"""The memory that a process has used."""

from __future__ import annotations

import sys
from pathlib import Path

LIBRARIES = 320 * 2**20  # what a process takes before it has read anything
_of_parent = 0  # bytes that this process was born with and that a fresh one would not have


def forget_parent() -> None:
    """To be called first in a forked child: what its parent holds is not for it to answer for.

    Its pages, shared until one of the two writes to them, stand in the child's resident size and
    so in its peak, from which the kernel cannot take them (clear_refs resets the peak to the
    resident size, they included). As much of them as a process's libraries take stays counted.
    """
    global _of_parent
    _of_parent = max(0, (_status("VmRSS") or 0) - LIBRARIES)


def peak_memory() -> int:
    """The most resident bytes that this process had of its own; 0 where the system does not say.

    Linux's `ru_maxrss` also counts what the parent held at the moment of the exec (getrusage(2):
    the value survives it), so a child of a large notebook would look large. `VmHWM` begins anew at
    an exec, but not at a fork: a forked child calls `forget_parent`.
    """
    peak = _status("VmHWM")
    if peak is not None:
        return peak - _of_parent
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int | None:
    """Bytes that Linux says of this process; None elsewhere."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return None
