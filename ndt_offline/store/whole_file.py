"""A file replaced as a whole: what stands at its name is the old one or the new one."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ndt_offline.storage.location import is_remote

DRAFTS = ".ndt-*.tmp"  # what a writer that was killed leaves


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty draft in the same folder; it takes the place of `path` when the block ends well.

    Its name cannot be foreseen and it is made anew (O_EXCL): a link that somebody laid out is
    never followed. A link at `path` itself is replaced, not what it points to. In object storage
    the draft is a file of this machine, put in place as one object.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="ndt-") as folder:
            draft = Path(folder) / "draft"
            draft.touch()
            yield draft
            path.write_bytes(draft.read_bytes())
        return
    draft = path.with_name(f".ndt-{secrets.token_hex(8)}.tmp")
    # Not tempfile: its files can be read by their owner alone, these follow the umask.
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
