"""Which code computed an answer: a stored one is not taken for that of other code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path

from ndt_offline import __version__
from ndt_offline.store.results import Results
from ndt_offline.store.tables import key_of

SERIES = "measure"  # metrics, and measures beside the spectra


@cache
def source_key(package: str) -> str:
    """Hash of a package's modules, such as `detect`, and of those that compute series.

    The version where they cannot be read.
    """
    digest = hashlib.blake2b(__version__.encode(), digest_size=8)
    try:
        for name in sorted({package, SERIES}):
            home = Path(str(import_module(f"ndt_offline.{name}").__file__)).parent
            for path in sorted(home.glob("*.py")):
                digest.update(path.name.encode() + path.read_bytes())
    except OSError:
        return __version__
    return digest.hexdigest()


def series_key(results: Results) -> str:
    """Identity of the stored spectra and of the code that makes series of them."""
    return key_of(source_key(SERIES), results.content_key())
