"""A user's own code, named as package.module:function on the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ndt_offline.errors import UsageError


def load_extension(kind: str, name: str, form: str) -> Any:
    """What `package.module:function` names; None where the module has no such thing.

    kind: what it is to be, such as `measure`; form: how a name looks, for the error. Raises
    UsageError. Never read a name from a run or a store: importing it runs its code. It is the
    user's own words on the command line, or nothing.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"{kind} {name!r} is not of the form {form}")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"{kind} {name!r}: importing {module_name!r} failed: {told(error)}",
            remedy=f"set PYTHONPATH so that `python -c 'import {module_name}'` works",
        ) from error
    return getattr(module, function_name, None)


def source_of(name: str) -> str | None:
    """The text of the module that a name leads to: edited, its code is run again. None: unknown."""
    import inspect

    try:
        return inspect.getsource(import_module(name.partition(":")[0]))
    except (OSError, TypeError):
        return None


def told(error: Exception) -> str:
    """An error of the user's code in a sentence of ours."""
    return f"{type(error).__name__}: {error}"
