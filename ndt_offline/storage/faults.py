"""Faults of object storage: told as what they are, without credentials that they may repeat."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ndt_offline.errors import NdtError

_SECRET = re.compile(r"(://)[^/@\s]+@")
_QUERY = re.compile(r"(://[^\s?#]*)[?#][^\s'\"]*")
_ROOTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "adlfs", "azure", "google")


@cache
def quiet_forks() -> None:
    """Forked children do not complain of the connections that only their parent can close."""
    if not hasattr(os, "register_at_fork"):
        return
    logger, levels = logging.getLogger("asyncio"), [logging.NOTSET]

    def before() -> None:
        levels[0] = logger.level
        logger.setLevel(logging.CRITICAL)

    os.register_at_fork(before=before, after_in_parent=lambda: logger.setLevel(levels[0]))


def redacted(text: str) -> str:
    """A message without what could be a password or a token in a URL."""
    return _QUERY.sub(r"\1?...", _SECRET.sub(r"\1...@", text))


def holds_secret(url: str) -> bool:
    """Whether a URL holds a user, who may be a token, or options, in which tokens travel."""
    return "?" in url or "#" in url or _SECRET.search(url) is not None


@contextmanager
def answered(where: object) -> Iterator[None]:
    """Faults of a storage's library as OSError or NdtError, without what they may repeat."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(where)) from None
    except PermissionError as error:
        what = redacted(str(error)) or "not allowed"
        raise PermissionError(errno.EACCES, what, str(where)) from None
    except NdtError:
        raise
    except OSError as error:
        told = redacted(error.strerror or str(error)) or type(error).__name__
        raise OSError(error.errno or errno.EIO, told, str(where)) from None
    except Exception as error:
        if not is_storage(error):
            raise
        told = redacted(f"{type(error).__name__}: {error}")
        raise OSError(errno.EIO, f"the storage does not answer: {told}", str(where)) from None


def is_storage(error: BaseException) -> bool:
    """Whether an error comes from a library of object storage: no credentials, no answer."""
    return any(kind.__module__.split(".")[0] in _ROOTS for kind in type(error).__mro__)
