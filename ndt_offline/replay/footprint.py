"""The memory that a process has used."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory() -> int:
    """The most resident bytes that this process had; 0 where the system does not say.

    Linux's `ru_maxrss` also counts what the parent held at the moment of the exec (getrusage(2):
    the value survives it), so a child of a large notebook would look large: `VmHWM` does not.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
