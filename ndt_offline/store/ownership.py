"""Ownership: which analysis a store belongs to, and the root's attributes, which are its to write.

On a disk the lock keeps others out. Object storage has none, and Zarr writes the metadata of a
group as it was when it was opened: a driver that looked earlier would put back what a later one
changed. So the root is read again before each write, and only what is being said is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.store.whole_file import replacing

WRITER = "writer"  # attribute of the root: the token of the analysis that the store belongs to


def take(store: Path, token: str | None = None) -> str:
    """Make a store that is there this analysis's own; returns the token, by default a new one."""
    token = token or uuid4().hex
    with changed_root(store) as document:
        document["attributes"][WRITER] = token
    return token


def check_owner(store: Path, token: str | None) -> None:
    """Raise NdtError where the store belongs to another analysis by now; None is nobody's."""
    _check(_read(store), store, token)


def write_attributes(
    root: Any, store: Path, values: Mapping[str, Any], token: str | None = None
) -> None:
    """Set these attributes of the root and leave the others as they are now, not as it knew them.

    token: whose the store must be; None asks nothing.
    """
    document = _read(store)
    _check(document, store, token)
    root.attrs.put({**document["attributes"], **values})


@contextmanager
def changed_root(store: Path, token: str | None = None) -> Iterator[dict[str, Any]]:
    """The root's metadata as they are now, written back when the block ends well."""
    document = _read(store)
    _check(document, store, token)
    yield document
    with replacing(store / "zarr.json") as draft:
        draft.write_text(json.dumps(document, indent=2))


@contextmanager
def undisturbed(store: Path, token: str) -> Iterator[None]:
    """Whatever goes wrong in here after another analysis took over does so because of that."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if _is_overtaken(store, token):
            raise _overtaken(store) from error
        raise


def _read(store: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((store / "zarr.json").read_bytes())
    return document


def _check(document: Mapping[str, Any], store: Path, token: str | None) -> None:
    if token is not None and document["attributes"].get(WRITER) != token:
        raise _overtaken(store)


def _is_overtaken(store: Path, token: str) -> bool:
    with suppress(OSError, ValueError, KeyError):
        return bool(_read(store)["attributes"].get(WRITER) != token)
    return False


def _overtaken(store: Path) -> NdtError:
    return NdtError(
        "another analysis has taken over the store",
        path=store,
        remedy="wait for it; the same command then goes on from there",
    )
