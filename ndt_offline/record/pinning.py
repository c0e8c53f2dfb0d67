"""Page-locking the ring, so that copies from a GPU land in it while training goes on.

A copy into ordinary memory is waited for by the driver, whatever `non_blocking` says. Where the
memory cannot be locked (limits, drivers), the copy is waited for: slower, not wrong.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ndt_offline.record.ring import Ring

PORTABLE = 1  # cudaHostRegisterPortable: for every device of the process


class Pin:
    """The ring that is page-locked at present; at most one."""

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self._address = 0

    @property
    def held(self) -> bool:
        return bool(self._address)

    def hold(self, ring: Ring | None, runtime: Any) -> bool:
        """Lock a ring's memory, once; False where that failed, which is not tried again.

        runtime: `torch.cuda.cudart()`, or what has its `cudaHostRegister` and `Unregister`.
        """
        if ring is None or ring is self._ring:
            return self.held
        self.drop(runtime)
        self._ring = ring
        address, size = _place(ring)
        with contextlib.suppress(Exception):  # whatever a driver thinks of
            if int(runtime.cudaHostRegister(address, size, PORTABLE)) == 0:
                self._address = address
        return self.held

    def drop(self, runtime: Any) -> None:
        """Unlock, before the memory goes; nothing may be on its way into it."""
        if self._address:
            with contextlib.suppress(Exception):  # the process may be ending
                runtime.cudaHostUnregister(self._address)
        self._ring, self._address = None, 0


def _place(ring: Ring) -> tuple[int, int]:
    memory = np.frombuffer(ring.memory, np.uint8)
    return int(memory.ctypes.data), len(memory)
