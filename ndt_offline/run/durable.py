"""Writing a file so that it is either whole or absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

LITTER = ".tmp"  # suffix of a file that is being written; where its process died, it is swept later


def write(path: Path, parts: Sequence[bytes | bytearray | memoryview], sync: bool = True) -> int:
    """Write to a temporary name, fsync, rename; returns the size. The umask decides the mode.

    Without `sync` the caller makes it durable later; the journal's checksum tells until then.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{LITTER}")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            size = file.tell()
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)
    return size


def sync(files: Sequence[Path]) -> None:
    """fsync of files and of the folders they lie in; those that are gone by now are left out."""
    for path in files:
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """A rename is durable when its folder is. (Windows cannot open a folder.)"""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
