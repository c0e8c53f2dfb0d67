"""Fields of a file that may come from a stranger: each is taken with its type, or refused."""

from __future__ import annotations

import re
from typing import Any

from ndt_offline.errors import RefusedError

MAX_LIST = 10_000
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,999}\Z")


def check_key(key: Any, what: str) -> str:
    """A state-dict or module name: printable, no path tricks, at most 500 characters."""
    if not isinstance(key, str) or len(key) > 500:
        raise RefusedError(f"{what}: {show(key)} is no name")
    parts = key.replace("\\", "/").split("/")
    if ".." in key or not key.isprintable() or (key and parts[0] == ""):
        raise RefusedError(f"{what}: the name {show(key)} is not allowed")
    return key


def show(thing: Any) -> str:
    """A few characters of anything, safe to print."""
    return ascii(thing)[:80]


def take_object(thing: Any, what: str) -> dict[str, Any]:
    """`thing` if it is a JSON object."""
    if not isinstance(thing, dict):
        raise RefusedError(f"{what} is no object: {show(thing)}")
    return thing


def take_list(thing: Any, what: str, limit: int = MAX_LIST) -> list[Any]:
    """`thing` if it is a list of at most `limit`."""
    if not isinstance(thing, list) or len(thing) > limit:
        raise RefusedError(f"{what} is no list of at most {limit}: {show(thing)}")
    return thing


def take_one_of(thing: Any, allowed: set[str] | frozenset[str], what: str) -> str:
    """`thing` if it is one of a few words."""
    if not isinstance(thing, str) or thing not in allowed:
        raise RefusedError(f"{what} is {show(thing)}, not one of {', '.join(sorted(allowed))}")
    return thing


def take_identifier(thing: Any, what: str) -> str:
    """`thing` if it is a name for a value: letters, digits, underscores."""
    if not isinstance(thing, str) or not _IDENTIFIER.match(thing):
        raise RefusedError(f"{what}: {show(thing)} is no name of a value")
    return thing


def take_integer(thing: Any, what: str, low: int, high: int) -> int:
    """`thing` if it is an integer (no boolean) from `low` to `high`."""
    if type(thing) is not int or not low <= thing <= high:
        raise RefusedError(f"{what} is {show(thing)}, not an integer from {low} to {high}")
    return thing


def take_checksum(thing: Any) -> str | None:
    """`thing` if it is None or 64 hexadecimal digits."""
    if thing is not None and not (isinstance(thing, str) and re.match(r"[0-9a-f]{64}\Z", thing)):
        raise RefusedError(f"constants_sha256 is {show(thing)}")
    return thing


def take_pair(thing: Any, what: str) -> tuple[Any, Any]:
    """The two items of a list of two."""
    if not isinstance(thing, list) or len(thing) != 2:
        raise RefusedError(f"{what} is no pair: {show(thing)}")
    return thing[0], thing[1]
