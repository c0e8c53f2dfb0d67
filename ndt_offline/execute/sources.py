"""Which code computed an answer: a stored one is not taken for that of other code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path

from ndt_offline import __version__


@cache
def source_key(package: str) -> str:
    """Hash of a package's modules, such as `detect`; the version where they cannot be read."""
    home = import_module(f"ndt_offline.{package}").__file__
    digest = hashlib.blake2b(__version__.encode(), digest_size=8)
    try:
        for path in sorted(Path(str(home)).parent.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    except OSError:
        return __version__
    return digest.hexdigest()
