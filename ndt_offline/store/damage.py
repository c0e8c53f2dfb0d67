"""Damage in a store: what a reader raises on it, told as one error with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from ndt_offline.errors import NdtError
from ndt_offline.storage.faults import is_storage, redacted
from ndt_offline.store.results import Results, damaged

# Nothing else is about a store; what an operating system refuses says it better itself.
_OTHERS = (NdtError, OSError, MemoryError)


@contextmanager
def reading(store: Path, always: bool = False) -> Iterator[None]:
    """Raises DamagedError for what goes wrong in here because of what the store holds.

    always: whatever goes wrong does so, even if it was raised in another process.
    """
    try:
        yield
    except Exception as error:
        if is_storage(error):
            raise silent(store, error) from None
        if isinstance(error, _OTHERS) or not (always or _in_store(error)):
            raise
        raise damaged(store, error) from error


def silent(store: Path | None, error: Exception) -> NdtError:
    """What to say where object storage gives no answer: nothing is damaged."""
    told = redacted(f"{type(error).__name__}: {error}")
    remedy = "check credentials, endpoint and network; the same command goes on from here"
    return NdtError(f"the storage does not answer: {told}", path=store, remedy=remedy)


def damage_of(error: Exception) -> NdtError | None:
    """The same for an error that came through, with the store that was being read."""
    if isinstance(error, _OTHERS) or not (is_storage(error) or _in_store(error)):
        return None
    stores = [
        value.path
        for frame, _ in walk_tb(error.__traceback__)
        for value in frame.f_locals.values()
        if isinstance(value, Results)
    ]
    if is_storage(error):
        return silent(stores[-1] if stores else None, error)
    return damaged(stores[-1], error) if stores else None


def _in_store(error: Exception) -> bool:
    """Whether it was raised while Zarr was at work, or by our own reading of a store."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any(name.startswith("zarr.") for name in modules) or (
        bool(modules) and modules[-1].startswith("ndt_offline.store.")
    )
