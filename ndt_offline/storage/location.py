"""Where a run or a store lies: a path of this machine, or a URL of object storage.

`locate("ckpts")` is a `pathlib.Path`; `locate("s3://bucket/ckpts")` answers to the same questions
(those that this package asks) through fsspec. Credentials never stand in a URL, which reaches
tables, stores, reports and the list of processes: such a URL is refused, without repeating it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from ndt_offline.errors import UsageError
from ndt_offline.storage.remote import Remote


def locate(name: str | Path | Remote) -> Path:
    """A path, or what stands for one; UsageError for a URL that holds credentials.

    Typed as a path: a remote place has the part of its interface that is used here.
    """
    if isinstance(name, Remote):
        return cast(Path, name)
    if isinstance(name, Path) or "://" not in name:
        return Path(name)
    return cast(Path, Remote.of(name))


def is_remote(path: Any) -> bool:
    """Whether a place is in object storage."""
    return isinstance(path, Remote)


def is_there(path: Path) -> bool:
    """Whether a file or object exists; where the storage gives no answer, none is missing."""
    if not is_remote(path):
        return os.path.exists(path)
    try:
        return path.exists()
    except OSError:
        return True


def files_below(folder: Path) -> set[str]:
    """The names of all files below a folder, relative to it; none where it is missing."""
    if is_remote(folder):
        return folder.files()  # type: ignore[attr-defined]
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def local(name: str | Path, what: str) -> Path:
    """A path of this machine; UsageError, saying `what` needs one, for a URL."""
    path = locate(name)
    if is_remote(path):
        raise UsageError(f"{what} needs a folder of this machine", path=path, remedy="copy it here")
    return path
