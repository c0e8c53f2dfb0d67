"""Errors a user can act on: what happened, where, and what to try next."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class NdtError(Exception):
    """A mistake or a fault that has a remedy; the command line prints it without a traceback.

    Inner code raises the small fact; the boundary that knows more adds it with `at`.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | Path | None = None,
        step: int | None = None,
        layer: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.path, self.step, self.layer, self.remedy = what, path, step, layer, remedy

    def at(
        self,
        *,
        path: str | Path | None = None,
        step: int | None = None,
        layer: str | None = None,
        remedy: str | None = None,
    ) -> NdtError:
        """The same error with the places filled in that are still unknown."""
        self.path = self.path if self.path is not None else path
        self.step = self.step if self.step is not None else step
        self.layer = self.layer if self.layer is not None else layer
        self.remedy = self.remedy if self.remedy is not None else remedy
        return self

    def __str__(self) -> str:
        where = [
            f"{name} {value}"
            for name, value in (("step", self.step), ("layer", self.layer))
            if value is not None
        ]
        head = f"{self.path}: " if self.path is not None else ""
        tail = f" ({', '.join(where)})" if where else ""
        return f"{head}{self.what}{tail}" + (f"\n  try: {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling (between worker and
        # driver) unless they say how.
        return _rebuild, (type(self), self.what, self.path, self.step, self.layer, self.remedy)


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that is not known: the one most like it, and all there are."""
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    close = get_close_matches(name, names, 1)
    listed = ", ".join(names)
    return f"{close[0]} (known: {listed})" if close else f"one of {listed}"


class UsageError(NdtError):
    """The call asks for something that cannot be: an unknown layer, metric or option value."""


class DamagedError(NdtError):
    """Stored bytes are not what was recorded: truncated, flipped, or decoded on a wrong base."""


class RefusedError(NdtError):
    """Input that is well-formed but not allowed: an unknown operation, a hostile header."""


def _rebuild(
    kind: type[NdtError],
    what: str,
    path: str | Path | None,
    step: int | None,
    layer: str | None,
    remedy: str | None,
) -> NdtError:
    return kind(what, path=path, step=step, layer=layer, remedy=remedy)
