"""The device that replays: its name, its settings, how many checkpoints it takes at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import RefusedError, UsageError

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
NAMES = "auto, cpu, cuda or cuda:N"

SHARE = 4  # a quarter of the device's memory is planned with; the rest is for what is not counted
MOST = 32  # checkpoints at once: from here on nothing is gained where one is small
WORK = 1e12  # operations at once: beyond it each operation fills a device by itself


def check_device(asked: str) -> str:
    """The name as given; UsageError for one that no device has. Loads nothing."""
    if not _NAME.fullmatch(asked):
        raise UsageError(f"--device {asked[:40]!r} is not a device", remedy=f"one of {NAMES}")
    return asked


def find_device(asked: str) -> str:
    """`cpu` or `cuda:N` for what was asked; `auto` is the first GPU, or the processor.

    RefusedError where a GPU is asked for and there is none. CUDA is not initialised by it, so that
    the process can still fork.
    """
    if check_device(asked) == "cpu":
        return "cpu"
    count = len(gpus())
    if asked == "auto":
        return "cuda:0" if count else "cpu"
    index = int(asked.partition(":")[2] or 0)
    if index >= count:
        have = f"it sees {count} GPUs, cuda:0 first" if count else "torch sees no CUDA device"
        raise RefusedError(
            f"--device {asked}: {have}",
            remedy="--device cpu; nvidia-smi and CUDA_VISIBLE_DEVICES say which there are",
        )
    return f"cuda:{index}"


def gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks the driver, not CUDA
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [x.strip() for x in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if x.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 in float32, the same every time: TF32 off, then as it was."""
    import torch

    cudnn: Any = torch.backends.cudnn
    homes: list[tuple[Any, str, object]] = [
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (cudnn.conv, "fp32_precision", "ieee"),
        (cudnn.rnn, "fp32_precision", "ieee"),
        (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False),
        (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
    ]
    before = []
    for home, name, value in homes:
        with suppress(AttributeError):  # not in every build
            before.append((home, name, getattr(home, name)))
            setattr(home, name, value)
    try:
        yield
    finally:
        for home, name, value in before:
            setattr(home, name, value)


def batch_size(each: float, flops: float, memory: int) -> int:
    """Checkpoints at once, a power of two: by bytes and operations of one, and a device's memory.

    By shapes and the kind of device alone: what is free at the moment would change the numbers.
    """
    room = min(MOST, memory / SHARE / max(each, 1.0), WORK / max(flops, 1.0))
    return 1 << int(max(room, 1.0)).bit_length() - 1


def device_memory(device: torch.device) -> int:
    """Bytes of a device's memory."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    from ndt_offline.graph.guards import physical_memory

    return physical_memory()


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory is full."""
    import torch

    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or "out of memory" in str(error).lower()


def free_cache(device: torch.device) -> None:
    """Give back what torch holds of a device's memory without using it."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
