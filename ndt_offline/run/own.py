"""Files of a run: only the run's own are deleted.

A journal is input: what it names is deleted only where the recorder itself would have put it.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

_STEP = r"step_(\d{12,14})"
_SEGMENT = r"segment_(\d{12,14})_(\d{12,14})(?:_small)?(?:_\d+)?"
_NAMES = {
    "checkpoints": re.compile(rf"(?:{_STEP}|{_SEGMENT})\.safetensors", re.ASCII),
    "raw": re.compile(rf"{_STEP}\.safetensors", re.ASCII),
}


def is_own(attempt: Path, path: Path, step: int) -> bool:
    """Whether this is a file that recording or packing made for `step` of this attempt.

    A real file, directly in the attempt's own folder, by no symbolic link, under a name of ours.
    """
    named = _NAMES.get(path.parent.name)
    match = named.fullmatch(path.name) if named else None
    if match is None:
        return False
    digits = [int(digits) for digits in match.groups() if digits]
    home = attempt.parent.parent.resolve() / "attempts" / attempt.name / path.parent.name
    try:
        real = path.parent.resolve(strict=True) == home and stat.S_ISREG(path.lstat().st_mode)
    except (OSError, RuntimeError):
        return False
    return real and digits[0] <= step <= digits[-1]
