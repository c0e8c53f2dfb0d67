"""The training step of a checkpoint that others wrote, told by the names of its file and folders.

    step_100.safetensors, model-000100.safetensors, epoch=3-step=1200.ckpt, iter_0000500/
    checkpoint-100/model.safetensors, ckpt/100/model.safetensors

The innermost name decides that has a word for steps, or one for epochs (the axis then counts
epochs), or that is a folder whose name is a number; last the last number of the file's name.
`10k`, `0.5` and `1e3` are no steps: they are refused, never read as 10, as 0 and as 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ndt_offline.run.journal import MAX_STEP

_END = r"(\d+)(?![\d.]*[kKmM](?![A-Za-z]))(?!\d|\.\d|[eE][-+]?\d)"
_BEFORE = r"(?:^|[^a-z])"
_WORDS = (
    rf"{_BEFORE}(?:global[-_ ]?step|steps?|iters?|iterations?|updates?)[-_=. ]?{_END}",
    rf"{_BEFORE}(?:checkpoint|ckpt|chkpt)[-_=. ]?{_END}",
    rf"{_BEFORE}(?:epochs?|ep)[-_=. ]?{_END}",
)
_SAID = tuple(re.compile(word, re.IGNORECASE | re.ASCII) for word in _WORDS)
_LAST = re.compile(rf"(?<!\d)(?<!\d[.eE])(?<!\d[eE][-+]){_END}(?!.*\d)", re.ASCII)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$", re.ASCII)
MAX_NAME = 255
_SUFFIXES = (".safetensors", ".index.json", ".ckpt", ".pth", ".pt", ".bin")
WHOLE = ("model", "pytorch_model", "adapter_model", "diffusion_pytorch_model", "consolidated")


def is_shard(name: str) -> bool:
    """Whether a file is one part of several, such as model-00001-of-00003.safetensors."""
    return _SHARD.search(stem(name)) is not None


def stem(name: str) -> str:
    """A file's name without the suffixes that checkpoints have."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def step_in(parts: Sequence[str], file: bool = True) -> int | None:
    """The step that the parts of a path say, innermost last; None where none of them says one.

    file: whether the last part names a file.
    """
    names = [part for part in reversed(parts) if len(part) <= MAX_NAME]
    own = _SHARD.sub("", stem(parts[-1])) if file and names and names[0] == parts[-1] else None
    if own is not None:
        names[0] = own
    found = next((said for name in names if (said := _said(name, name is own))), None)
    if found is None and own is not None and own not in WHOLE:
        last = _LAST.search(own)
        found = last.group(1) if last else None
    step = int(found) if found is not None else MAX_STEP
    return step if step < MAX_STEP else None


def _said(name: str, own: bool) -> str | None:
    for pattern in _SAID:
        matches = pattern.findall(name)
        if matches:
            return str(matches[-1])
    return name if not own and name.isascii() and name.isdecimal() else None
