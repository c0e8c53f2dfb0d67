"""Error-bounded precision: values of a tensor on a fixed grid.

With precision q12 no value of a float32 or float64 tensor moves by more than 2^-12 times its rms
(rounded to a power of two): the grid's step is 2^round(log2 rms) * 2^-11, chosen at the keyframe
and constant within its segment, so that prediction in multiples of the step stays exact and errors
do not add up. Values are rounded, not differences: no drift. Tensors of up to 2^14 elements get 3
digits more: they weigh little in a file and much in the layers behind them. A tensor without a
finite non-zero rms, or with values beyond 2^22 steps, is kept as it is.

By Weyl's inequality every singular value of a rounded weight W + E is within ||E||_2 of that of W;
`bounds` gives an upper bound of ||E||_2, not an estimate of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.run.layout import Bytes, Layout, Vectors

PRECISIONS = {"q10": 10, "q12": 12, "q14": 14}
GRIDDED = {"float32": 4, "float64": 8}
SMALL, MORE = 2**14, 3  # elements; digits that tensors up to there have more
REACH = 2.0**22  # steps: float32 holds every multiple up to there exactly
EXPONENTS = {"float32": (-120, 120), "float64": (-900, 900)}

Scales = list[tuple[slice, int | None]]  # elements of one tensor, exponent of its step


@dataclass(frozen=True)
class Bound:
    """What rounding did to one tensor, at most."""

    absolute: float  # max |E|
    spectral: float  # >= ||E||_2 of E as [first dimension, rest]


def digits_of(precision: str | None) -> int | None:
    """The number of binary digits of a precision's name; None for lossless."""
    if precision in (None, "exact"):
        return None
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}",
            remedy="leave precision out: recording is then lossless",
        )
    return PRECISIONS[precision]


def choose(layout: Layout, vectors: Vectors, digits: int) -> dict[str, list[int | None]]:
    """Exponents of the grid steps, per dtype in the order of the table."""
    grid: dict[str, list[int | None]] = {dtype: [] for dtype in layout.sizes if dtype in GRIDDED}
    for tensor, span in layout.spans():
        if tensor.dtype in grid:
            values = vectors[tensor.dtype][span].view(tensor.dtype)
            more = MORE if len(values) <= SMALL else 0
            grid[tensor.dtype].append(_exponent(values, digits - 1 + more))
    return grid


def scales_of(layout: Layout, exponents: list[int | None], dtype: str) -> Scales:
    """The exponents with the elements they hold for; RefusedError where they do not fit."""
    spans = [span for tensor, span in layout.spans() if tensor.dtype == dtype]
    low, high = EXPONENTS.get(dtype, (1, 0))
    good = isinstance(exponents, list) and len(exponents) == len(spans)
    if not good or any(
        e is not None and not (type(e) is int and low <= e <= high) for e in exponents
    ):
        raise RefusedError(f"the grid of {dtype} does not fit its table")
    item = GRIDDED[dtype]
    return [
        (slice(span.start // item, span.stop // item), exponent)
        for span, exponent in zip(spans, exponents, strict=True)
    ]


def fits(vectors: Vectors, grid: dict[str, list[int | None]], layout: Layout) -> bool:
    """Whether every value can be rounded to this grid."""
    for dtype, exponents in grid.items():
        values = vectors[dtype].view(dtype)
        for part, exponent in scales_of(layout, exponents, dtype):
            if exponent is not None and not _within(values[part], exponent):
                return False
    return True


def rounded(vectors: Vectors, grid: dict[str, list[int | None]], layout: Layout) -> Vectors:
    """The vectors with every value on the grid; other dtypes as they are."""
    out = dict(vectors)
    for dtype, exponents in grid.items():
        scales = scales_of(layout, exponents, dtype)
        out[dtype] = from_grid(to_grid(vectors[dtype], dtype, scales), dtype, scales)
    return out


def round_to(
    known: dict[str, list[int | None]] | None, layout: Layout, vectors: Vectors, digits: int
) -> tuple[dict[str, list[int | None]], Vectors]:
    """The grid that is known, or where there is none that holds the vectors another; and them."""
    if known is None or not fits(vectors, known, layout):
        known = choose(layout, vectors, digits)
    return known, rounded(vectors, known, layout)


def bounds(layout: Layout, exact: Vectors, coarse: Vectors) -> dict[str, Bound]:
    """Per tensor that was changed: the largest error, and a bound of its spectral norm.

    ||E||_2 <= min(||E||_F, sqrt(||E||_1 ||E||_inf)), in float64 and rounded up.
    """
    found = {}
    for tensor, span in layout.spans():
        if tensor.dtype in GRIDDED and tensor.nbytes:
            pair = [v[tensor.dtype][span].view(tensor.dtype) for v in (exact, coarse)]
            if not np.isfinite(pair[0]).all():  # kept as it is
                continue
            error = np.abs(pair[0].astype(np.float64) - pair[1])
            if error.any():
                found[tensor.name] = _bound(error.reshape(tensor.shape or (1,)))
    return found


def told_errors(
    layout: Layout, exact: Vectors, coarse: Vectors
) -> tuple[dict[str, str], dict[str, float]]:
    """What rounding did: per tensor for the file, the worst for the journal."""
    found = bounds(layout, exact, coarse)
    worst = {
        "error_max": max((b.absolute for b in found.values()), default=0.0),
        "error_spectral": max((b.spectral for b in found.values()), default=0.0),
    }
    return {"bounds": json.dumps({n: [b.absolute, b.spectral] for n, b in found.items()})}, worst


def to_grid(vector: Bytes, dtype: str, scales: Scales) -> npt.NDArray[Any]:
    """Values as multiples of their steps; tensors without a grid as the bits they are."""
    values = vector.view(dtype)
    out = np.empty(len(values), f"i{GRIDDED[dtype]}")
    for part, exponent in scales:
        if exponent is None:
            out[part] = values[part].view(out.dtype)
        else:
            out[part] = np.rint(values[part] * _power(-exponent, dtype))
    return out


def from_grid(integers: npt.NDArray[Any], dtype: str, scales: Scales) -> Bytes:
    """The inverse: multiples of steps as values."""
    out = np.empty(len(integers), dtype)
    for part, exponent in scales:
        if exponent is None:
            out[part].view(integers.dtype)[:] = integers[part]
        else:
            out[part] = integers[part].astype(dtype) * _power(exponent, dtype)
    return out.view(np.uint8)


def _power(exponent: int, dtype: str) -> Any:
    """2^exponent, with which a product is exact: `EXPONENTS` keep it a normal number."""
    return np.dtype(dtype).type(2.0**exponent)


def _exponent(values: npt.NDArray[Any], digits: int) -> int | None:
    with np.errstate(over="ignore", invalid="ignore"):
        rms = float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if len(values) else 0.0
    if not np.isfinite(rms) or rms == 0.0:
        return None
    exponent = round(np.log2(rms)) - digits
    low, high = EXPONENTS[str(values.dtype)]
    return exponent if low <= exponent <= high and _within(values, exponent) else None


def _within(values: npt.NDArray[Any], exponent: int) -> bool:
    # Not `max > limit`: a NaN must fail too.
    return not len(values) or bool(np.abs(values).max() <= np.ldexp(REACH, exponent))


def _bound(error: npt.NDArray[np.float64]) -> Bound:
    flat = error.reshape(len(error), -1)
    frobenius = float(np.sqrt(np.square(flat).sum()))
    mixed = float(np.sqrt(flat.sum(axis=0).max() * flat.sum(axis=1).max()))
    up = 1 + 1e-9  # rounding of the sums
    return Bound(float(error.max()), min(frobenius, mixed) * up)
