"""A user's own measure, named as package.module:function on the command line."""

from __future__ import annotations

from collections.abc import Callable

from ndt_offline.errors import UsageError
from ndt_offline.extension import load_extension, told
from ndt_offline.measure.plugin import Measure

FORM = "package.module:function, a function without arguments that returns a Measure"


def load_measure(name: str) -> Measure:
    """The measure behind `package.module:function`, or behind the name of a Measure itself."""
    found = load_extension("measure", name, FORM)
    if not isinstance(found, Measure):
        found = _made(name, found)
    return found.check()


def _made(name: str, factory: object) -> Measure:
    if not isinstance(factory, Callable):  # type: ignore[arg-type]
        raise UsageError(f"measure {name!r}: there is no such function", remedy=FORM)
    try:
        made = factory()  # type: ignore[operator]
    except Exception as error:
        raise UsageError(f"measure {name!r} failed: {told(error)}", remedy=FORM) from error
    if not isinstance(made, Measure):
        what = f"measure {name!r} returned {type(made).__name__}"
        raise UsageError(what, remedy=f"ndt_offline.measure.plugin.Measure; {FORM}")
    return made
