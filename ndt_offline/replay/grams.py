"""Gram matrices on a device, and their eigenvalues where they are found fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch

from ndt_offline.replay.capture import Factors
from ndt_offline.replay.processors import cores
from ndt_offline.replay.product import values_of_products
from ndt_offline.replay.spectra import LARGEST, SMALLEST, trusted
from ndt_offline.replay.workspace import Array, Workspace

Parts = tuple[torch.Tensor, ...]  # a Gram matrix, or the four of `products`

PIECE = 1 << 25  # float64 elements of a matrix at a time, all checkpoints together: 256 MB
# torch's batched solver on CUDA is one kernel up to this side; above it, in many versions, it is a
# loop over the matrices, each of which takes longer than a core of the host.
ON_DEVICE = 32
THREADS = 8  # of the host, for the others; each works on matrices of its own


def gram(matrix: torch.Tensor, pieces: int = PIECE) -> torch.Tensor:
    """A A' or A' A [k, k] of the smaller side k, in float64, summed over slices of the long side.

    Works under `torch.func.vmap`, where `matrix` is one of many.
    """
    rows, columns = matrix.shape
    tall = matrix if rows >= columns else matrix.T
    long, side = tall.shape
    step = max(512, pieces // max(side, 1))
    total = None
    for start in range(0, long, step):
        piece = tall[start : start + step].double()
        part = piece.T @ piece
        total = part if total is None else total + part
    return torch.zeros((0, 0), dtype=torch.float64) if total is None else total


def gram_values(grams: torch.Tensor) -> list[Array | None]:
    """Descending square roots of the eigenvalues of each of [B, k, k]; NaN where not finite.

    None for a matrix whose small values are lost in its squares, or whose squares overflow or
    vanish: the matrix itself must be asked.
    """
    side = grams.shape[-1]
    if side == 0:
        return [np.zeros(0) for _ in grams]
    diagonals = grams.diagonal(dim1=1, dim2=2).cpu().numpy()
    tops = np.sqrt(diagonals.max(axis=1))
    usual = (tops > SMALLEST) & (tops < LARGEST) & (diagonals > 0.0).all(axis=1)
    if side <= ON_DEVICE and usual.all():
        found = list(torch.linalg.eigvalsh(grams).cpu().numpy())
        return [trusted(values) for values in found]
    host = grams.cpu().numpy()

    def one(index: int) -> Array | None:
        return _host_values(host[index], diagonals[index], float(tops[index]))

    return list(_pool().map(one, range(len(host)))) if len(host) > 1 else [one(0)]


def _host_values(matrix: Array, diagonal: Array, top: float) -> Array | None:
    if np.isnan(top):
        return np.full(len(diagonal), np.nan)
    if not SMALLEST < top < LARGEST:
        return None
    alive = np.flatnonzero(diagonal)
    if len(alive) < len(diagonal):
        matrix = matrix[np.ix_(alive, alive)]
    # numpy's, not scipy's: it lets other threads work.
    values = trusted(np.linalg.eigvalsh(matrix))
    if values is None or len(alive) == len(diagonal):
        return values
    return np.concatenate([values, np.zeros(len(diagonal) - len(alive))])


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(THREADS, cores()))


def products(matrix: torch.Tensor, factors: Factors, pieces: int = PIECE) -> Parts:
    """X' X, X' A, W and b of a layer that widens, as `values_of_products` takes them."""
    columns = matrix.shape[1]
    step = max(512, pieces // columns)
    square = seen = None
    for start in range(0, len(matrix), step):
        piece = matrix[start : start + step].double()
        part = factors.inputs[start : start + step].double()
        if factors.bias is not None:
            part = torch.cat([part, torch.ones_like(part[:, :1])], dim=1)
        square = part.T @ part if square is None else square + part.T @ part
        seen = part.T @ piece if seen is None else seen + part.T @ piece
    assert square is not None and seen is not None
    bias = () if factors.bias is None else (factors.bias.clone(),)
    return (square, seen, factors.weight.clone(), *bias)


def layer_values(
    checkpoints: Sequence[Mapping[int, Parts]], counts: Sequence[int], work: Workspace
) -> list[dict[int, Array | None]]:
    """Singular values of every layer (`counts` of them) of checkpoints; None as `gram_values`.

    Gram matrices of one side are solved together, whatever layer they belong to.
    """
    found: list[dict[int, Array | None]] = [{} for _ in checkpoints]
    sides: dict[int, list[tuple[int, int]]] = {}
    for index, parts in enumerate(checkpoints):
        for layer, part in parts.items():
            if len(part) == 1:
                sides.setdefault(part[0].shape[-1], []).append((index, layer))
            else:
                square, seen, weight, *bias = (x.cpu().numpy() for x in part)
                given = (weight, bias[0] if bias else None, counts[layer], work)
                found[index][layer] = values_of_products(square.copy(), seen.copy(), *given)
    for members in sides.values():
        stacked = torch.stack([checkpoints[index][layer][0] for index, layer in members])
        for (index, layer), values in zip(members, gram_values(stacked), strict=True):
            found[index][layer] = values
    return found
