"""How far two tensors are apart, on the scale of what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def relative_difference(have: torch.Tensor, expected: torch.Tensor) -> float:
    """max|have - expected| / max|expected|, over finite values; infinity where those disagree.

    0.0 means bit for bit the same. Values that are not finite must be so in both.
    """
    import torch

    have = have.detach().to("cpu", torch.float64)
    expected = expected.detach().to("cpu", torch.float64)
    if have.shape != expected.shape:
        return float("inf")
    finite = torch.isfinite(expected)
    if not torch.equal(have[~finite].nan_to_num(), expected[~finite].nan_to_num()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    error = float((have[finite] - expected[finite]).abs().max())
    scale = float(expected[finite].abs().max())
    return error if error == 0.0 or scale == 0.0 else error / scale
