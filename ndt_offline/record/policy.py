"""Nothing raises into training: faults are warned of once, counted, and retried less and less."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable

from ndt_offline.errors import NdtError, UsageError

_REMEDIES: dict[int | None, str] = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space: the quota is used up",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.ENOENT: "leave the run where it is while it is recorded",
    errno.EACCES: "make the run's directory writable",
    errno.EROFS: "record where files can be written",
    errno.EMFILE: "allow more open files (ulimit -n)",
}
LONGEST = 64  # checkpoints left out between two tries


class Policy:
    """What to do with faults of recording; on_error is "warn" or "raise"."""

    def __init__(self, on_error: str) -> None:
        if on_error not in ("warn", "raise"):
            raise UsageError(f"on_error={on_error!r}: expected 'warn' or 'raise'")
        self.raises = on_error == "raise"
        self.failures: list[str] = []  # the first hundred
        self.count = 0
        self._warned: set[str] = set()
        self._pause = self._left = 0

    def guard(self, act: Callable[[], None], what: str) -> bool:
        """Do it; False where it failed."""
        try:
            act()
        except Exception as error:
            self.failed(f"{what}: {_first_line(error)}", remedy_for(error))
            if self.raises:
                raise
            return False
        self._pause = 0
        return True

    def failed(self, what: str, remedy: str) -> None:
        """Count a fault, warn of the first, and leave out the next checkpoints."""
        self.count += 1
        if len(self.failures) < 100:
            self.failures.append(what)
        self._pause = min(max(2 * self._pause, 1), LONGEST)
        self._left = self._pause
        self.warn("fault", f"{what}; recording goes on, further faults are counted", remedy)

    def pausing(self) -> bool:
        """Whether this checkpoint is left out, because the last ones failed."""
        self._left -= 1
        return self._left >= 0 and self._pause > 0

    def warn(self, kind: str, what: str, remedy: str) -> None:
        # Python shows a warning once per text and place; steps differ, so we count ourselves.
        if kind not in self._warned:
            self._warned.add(kind)
            text = f"ndt-offline: {what}\n  try: {remedy}"
            try:
                warnings.warn(text, RuntimeWarning, stacklevel=4)
            except RuntimeWarning:  # warnings are errors here; training is not to end by ours
                if self.raises:
                    raise
                print(text, file=sys.stderr)


def _first_line(error: Exception) -> str:
    """Without the remedy, which an error of ours says on a line of its own."""
    return str(error).partition("\n")[0] or type(error).__name__


def remedy_for(error: Exception) -> str:
    """What a person can try; the cause decides, not the place."""
    told = error.remedy if isinstance(error, NdtError) else None
    number = error.errno if isinstance(error, OSError) else None
    return told or _REMEDIES.get(number, 'on_error="raise" shows where it comes from')
