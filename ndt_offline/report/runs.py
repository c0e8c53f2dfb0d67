"""Stores by the name a person gives: the run's directory, or the store itself."""

from __future__ import annotations

from pathlib import Path

from ndt_offline.errors import UsageError
from ndt_offline.storage.location import locate
from ndt_offline.store.results import Results


def open_results(path: str | Path) -> Results:
    """The analysis of a run; a UsageError, with the command to make it, where there is none."""
    given = locate(path)
    for store in (given / "analysis.zarr", given):
        if (store / "zarr.json").is_file():
            results = Results(store)
            if results.attrs.get("setup", {}) is None:  # layers were exchanged when it was killed
                raise UsageError("was interrupted", path=store, remedy=f"ndt-analyze {given}")
            return results
    if not given.exists():
        raise UsageError("there is no such directory", path=given)
    raise UsageError("holds no analysis", path=given, remedy=f"ndt-analyze {given}")


def run_name(results: Results) -> str:
    """A short name of the run: its directory."""
    store = results.path.resolve()
    return store.parent.name if store.name == "analysis.zarr" else store.stem
