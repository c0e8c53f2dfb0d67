"""A name in object storage that answers to what this package asks of a path."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from ndt_offline.errors import UsageError
from ndt_offline.storage.faults import answered, holds_secret, quiet_forks, redacted

LIBRARIES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
}  # fmt: skip


class Status(NamedTuple):
    """Size, and a number that changes when the object does."""

    st_size: int
    st_mtime_ns: int


class Remote:
    """A name in object storage: `protocol://bucket/key`.

    What a listing said of an object stays with the name that came from it: a folder of thousands
    of checkpoints is one request, not one for each.
    """

    def __init__(
        self, protocol: str, key: str, folder: bool | None = None, status: Status | None = None
    ) -> None:
        self._protocol, self._key = protocol, key
        self._folder, self._status = folder, status

    @classmethod
    def of(cls, text: str) -> Remote:
        """From a URL; raises UsageError for credentials in it and for an unknown protocol."""
        protocol, _, rest = text.partition("://")
        if holds_secret(text):
            raise UsageError(
                "a URL with credentials or options in it is not taken",
                path=redacted(text),
                remedy="give them by the environment or the storage's own configuration",
            )
        parts = [part for part in rest.split("/") if part not in ("", ".")]
        if ".." in parts or not rest.isprintable():
            raise UsageError("is no name in object storage", path=text)
        if protocol == "file":
            raise UsageError("name a local path without file://", path=text)
        found = cls(protocol, "/".join(parts))
        found.filesystem()
        return found

    @property
    def options(self) -> dict[str, Any]:
        """Of its filesystem: no listings kept, which could be old; one request for one object."""
        single = {"max_concurrency": 1} if self._protocol in ("s3", "s3a") else {}
        return {"use_listings_cache": False, **single}

    def filesystem(self) -> Any:
        """The fsspec filesystem of this process."""
        try:
            import fsspec

            quiet_forks()
            return fsspec.filesystem(self._protocol, **self.options)
        except ImportError:
            library = LIBRARIES.get(self._protocol, f"fsspec's library for {self._protocol}")
            remedy = f"pip install {library}"
            if library == "s3fs":
                remedy = "pip install 'ndt-offline[s3]'"
            raise UsageError(f"needs {library}", path=str(self), remedy=remedy) from None
        except ValueError:
            raise UsageError("the protocol is not known", path=str(self)) from None

    def __str__(self) -> str:
        return f"{self._protocol}://{self._key}"

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: Remote) -> bool:
        return self._key < other._key

    def __truediv__(self, name: str | PurePosixPath) -> Remote:
        inside = [part for part in str(name).split("/") if part not in ("", ".")]
        return Remote(self._protocol, "/".join([self._key, *inside]).lstrip("/"))

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self._key)

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        return self._pure.parts

    @property
    def parent(self) -> Remote:
        up = str(self._pure.parent)
        return Remote(self._protocol, "" if up == "." else up)

    @property
    def parents(self) -> list[Remote]:
        ups = [Remote(self._protocol, str(p)) for p in self._pure.parents]
        return [up for up in ups if up._key != "."]

    def with_name(self, name: str) -> Remote:
        return self.parent / name

    def absolute(self) -> Remote:
        return self

    def resolve(self) -> Remote:
        return self

    def is_symlink(self) -> bool:
        return False

    def exists(self) -> bool:
        with answered(self):
            return bool(self.filesystem().exists(self._key))

    def is_file(self) -> bool:
        if self._folder is not None:
            return not self._folder
        with answered(self):
            return bool(self.filesystem().isfile(self._key))

    def is_dir(self) -> bool:
        if self._folder is not None:
            return self._folder
        with answered(self):
            return bool(self.filesystem().isdir(self._key))

    def stat(self) -> Status:
        return self._status if self._status is not None else self.status()

    def status(self) -> Status:
        """Asked of the storage now."""
        with answered(self):
            about = self.filesystem().info(self._key)
        if about["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(self))
        return _status(about)

    def iterdir(self) -> Iterator[Remote]:
        with answered(self):
            found = self.filesystem().ls(self._key, detail=True)
        for about in found:
            key = about["name"].strip("/")
            if key != self._key:
                folder = about["type"] == "directory"
                status = None if folder else _status(about)
                yield Remote(self._protocol, key, folder, status)

    def files(self) -> set[str]:
        """The names of all objects below this one, relative to it."""
        with answered(self):
            found = self.filesystem().find(self._key)
        return {key.strip("/").removeprefix(f"{self._key}/") for key in found}

    def glob(self, pattern: str) -> Iterator[Remote]:
        """`*` and the like in any part; nothing where a folder on the way is missing."""
        first, _, rest = pattern.partition("/")
        if not set(first) & set("*?["):
            found = iter([self / first])
            if not rest and not (self / first).exists():
                return
        else:
            found = (path for path in self._listed() if fnmatch.fnmatchcase(path.name, first))
        for path in found:
            if not rest:
                yield path
            elif path._folder is not False:
                yield from path.glob(rest)

    def _listed(self) -> list[Remote]:
        try:
            return list(self.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def open(self, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        """For reading, whole; to read a part of an object there is `read_range`."""
        if mode not in ("r", "rb"):
            raise OSError(errno.EROFS, "objects are written whole", str(self))
        data = self.read_bytes()
        return io.BytesIO(data) if mode == "rb" else io.StringIO(data.decode(encoding))

    def read_bytes(self) -> bytes:
        with answered(self):
            return bytes(self.filesystem().cat_file(self._key))

    def read_range(self, start: int, stop: int) -> bytes:
        with answered(self):
            return bytes(self.filesystem().cat_file(self._key, start=start, end=stop))

    def write_bytes(self, data: bytes) -> None:
        """Put the object; readers see the old one or the new one, never a part."""
        with answered(self):
            self.filesystem().pipe_file(self._key, data)

    def unlink(self, missing_ok: bool = False) -> None:
        with answered(self):
            try:
                self.filesystem().rm_file(self._key)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def remove_all(self) -> None:
        """Remove every object under this name, where there is one."""
        with answered(self), suppress(FileNotFoundError):
            self.filesystem().rm(self._key, recursive=True)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Folders are not made: they are there where an object is in them."""


def _status(about: dict[str, Any]) -> Status:
    known = [about.get(k) for k in ("ETag", "etag", "md5Hash", "mtime", "LastModified",
                                    "last_modified", "created")]  # fmt: skip
    told = next((value for value in known if value is not None), 0)
    return Status(int(about["size"]), _number(told))


def _number(value: Any) -> int:
    digest = hashlib.blake2b(str(value).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
