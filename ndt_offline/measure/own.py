"""A user's own measure, named as package.module:function on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module

from ndt_offline.errors import UsageError
from ndt_offline.measure.plugin import Measure

FORM = "package.module:function, a function without arguments that returns a Measure"


def load_measure(name: str) -> Measure:
    """The measure behind `package.module:function`, or behind the name of a Measure itself.

    Never read a name from a run or a store: importing it runs its code. It is the user's own
    words on the command line, or nothing.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"measure {name!r} is not of the form {FORM}")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"measure {name!r}: importing {module_name!r} failed: {_short(error)}",
            remedy=f"set PYTHONPATH so that `python -c 'import {module_name}'` works",
        ) from error
    found = getattr(module, function_name, None)
    if not isinstance(found, Measure):
        found = _made(name, found)
    return found.check()


def source_of(name: str) -> str:
    """The text of the module that a name leads to: edited, its measure is computed again."""
    try:
        return inspect.getsource(import_module(name.partition(":")[0]))
    except (OSError, TypeError):
        return ""


def _made(name: str, factory: object) -> Measure:
    if not isinstance(factory, Callable):  # type: ignore[arg-type]
        raise UsageError(f"measure {name!r}: there is no such function", remedy=FORM)
    try:
        made = factory()  # type: ignore[operator]
    except Exception as error:
        raise UsageError(f"measure {name!r} failed: {_short(error)}", remedy=FORM) from error
    if not isinstance(made, Measure):
        what = f"measure {name!r} returned {type(made).__name__}"
        raise UsageError(what, remedy=f"ndt_offline.measure.plugin.Measure; {FORM}")
    return made


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
