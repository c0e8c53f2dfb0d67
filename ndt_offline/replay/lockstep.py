"""Eigenvalues of many tridiagonal matrices of one side in lock-step: compiled by numba.

The Pal-Walker-Kahan QL iteration on squares (Parlett, The Symmetric Eigenvalue Problem, 8.15) with
the roundings of LAPACK's dsterf, so that the numbers are the same to the last bit. One matrix
waits for its divisions most of the time; here `LANES` of them lie side by side in vector
registers. Every lane has its own shifts and splits: what lies in the others does not change it.

Importing this module imports numba, and the first call compiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ndt_offline.compiled import compiled

LANES = 16  # fewer than 16 make a loop that LLVM thinks too short to be made of vectors
ROUNDS = 30  # iterations per eigenvalue before it is given up, as in dsterf
_TINY = 2.0**-106  # square of the unit roundoff

# A row i of the work array [n + 1, FIELDS, LANES], flat: entry i of the diagonal, square of the
# one beside it, and the state of the iteration as it was when it had passed row i. The state
# travels with the walk because arrays of its own could overlap with these for all LLVM knows.
FIELDS = 9
_ROW = FIELDS * LANES
_D, _E, _C, _S, _G, _P, _SHIFT, _FIRST, _SECOND = (place * LANES for place in range(FIELDS))


@compiled
def _walk(work: Any, top: int, low: int) -> None:
    """All lanes from row `top` down to row `low`."""
    for i in range(top - 1, low - 1, -1):
        above = i + 1.0
        rows = work[i * _ROW : (i + 3) * _ROW]
        for k in range(LANES):
            shift = rows[_ROW + _SHIFT + k]
            first, second = rows[_ROW + _FIRST + k], rows[_ROW + _SECOND + k]
            cosine, sine = rows[_ROW + _C + k], rows[_ROW + _S + k]
            gamma, p = rows[_ROW + _G + k], rows[_ROW + _P + k]
            entry, square, beyond = rows[_D + k], rows[_E + k], rows[2 * _ROW + _D + k]
            r = p + square
            off = sine * r
            turned = p / r
            sine = square / r
            moved = turned * (entry - shift) - sine * gamma
            diagonal = gamma + (entry - moved)
            usual, flat = (moved * moved) / turned, cosine * square
            rows[_ROW + _D + k], rows[_ROW + _E + k] = diagonal, off
            rows[_C + k], rows[_S + k], rows[_G + k] = turned, sine, moved
            rows[_P + k] = usual if turned != 0.0 else flat
            rows[_SHIFT + k] = shift
            # The lowest two rows at which the matrix now falls apart.
            splits = abs(off) <= _TINY * abs(diagonal * beyond)
            rows[_SECOND + k] = first if splits else second
            rows[_FIRST + k] = above if splits else first


@compiled
def _hypotenuse(x: float) -> float:
    """Of 1 and x, as LAPACK rounds it."""
    larger, smaller = max(abs(x), 1.0), min(abs(x), 1.0)
    if smaller == 0.0:
        return larger
    share = smaller / larger
    return larger * np.sqrt(1.0 + share * share)


@compiled
def _pair(a: float, b: float, c: float) -> tuple[float, float]:
    """Eigenvalues of [[a, b], [b, c]], the larger in absolute value first, as dlae2 rounds them."""
    total, apart, twice = a + c, abs(a - c), abs(b + b)
    larger, smaller = (a, c) if abs(a) > abs(c) else (c, a)
    if apart > twice:
        share = twice / apart
        root = apart * np.sqrt(1.0 + share * share)
    elif apart < twice:
        share = apart / twice
        root = twice * np.sqrt(1.0 + share * share)
    else:
        root = twice * np.sqrt(2.0)
    if total == 0.0:
        return 0.5 * root, -0.5 * root
    one = 0.5 * (total - root if total < 0.0 else total + root)
    return one, (larger / one) * smaller - (b / one) * b


@compiled
def _deflate(work: Any, found: Any, k: int, low: int, first: int, second: int) -> tuple[int, int]:
    """Take the eigenvalues of lane k that stand at its low end: what is left is [low, top]."""
    last = found.shape[1] - 1
    while low <= last:
        if first >= low:
            top = first
        elif second >= low:
            top = second
        else:
            top = low
            while top < last:
                at = top * _ROW + k
                if abs(work[at + _E]) <= _TINY * abs(work[at] * work[at + _ROW]):
                    break
                top += 1
        at = low * _ROW + k
        if top == low:
            found[k, low] = work[at]
            low += 1
        elif top == low + 1:
            found[k, low], found[k, top] = _pair(work[at], np.sqrt(work[at + _E]), work[at + _ROW])
            low += 2
        else:
            return low, top
    return low, -1


@compiled
def _begin(work: Any, k: int, top: int, shift: float) -> None:
    """The state of lane k with which it starts at row `top`."""
    at = top * _ROW + k
    gamma = work[at] - shift
    work[at + _C], work[at + _S], work[at + _G], work[at + _P] = 1.0, 0.0, gamma, gamma * gamma
    work[at + _SHIFT], work[at + _FIRST], work[at + _SECOND] = shift, top, top


@compiled
def _wilkinson(work: Any, k: int, low: int) -> float:
    """The shift of lane k."""
    at = low * _ROW + k
    root = np.sqrt(work[at + _E])
    shift = (work[at + _ROW] - work[at]) / (2.0 * root)
    return float(work[at] - root / (shift + np.copysign(_hypotenuse(shift), shift)))


@compiled
def solve(work: Any, found: Any, failed: Any) -> None:
    """Eigenvalues of each lane into `found` [LANES, n], in no order.

    work: flat [n + 1, FIELDS, LANES], diagonals and squares of what is beside them in place,
    zeros elsewhere; destroyed. failed [LANES], bool: lanes where it is set are left alone, and it
    is set for those that do not converge. No lane may fall apart before it is begun.
    """
    n = found.shape[1]
    low, top = np.zeros(LANES, np.int64), np.full(LANES, -1)
    first, second = np.full(LANES, -1), np.full(LANES, -1)
    left, shifts, kept = np.full(LANES, ROUNDS * n), np.zeros(LANES), np.zeros((LANES, n, 2))
    low[failed] = n
    while True:
        for k in range(LANES):
            if low[k] < n:
                low[k], top[k] = _deflate(work, found, k, low[k], first[k], second[k])
                if low[k] < n and left[k] == 0:
                    failed[k], low[k], top[k] = True, n, -1
                if low[k] < n:
                    left[k] -= 1
                    work[top[k] * _ROW + _E + k] = 0.0
                    shifts[k] = _wilkinson(work, k, low[k])
                else:  # what goes on there stays as it is
                    for i in range(n):
                        work[i * _ROW + k], work[i * _ROW + _E + k] = 1.0, 0.0
        high, end = top.max(), low.min()
        if high < 0:
            return
        # A lane that starts further down idles up to there; its rows are put back afterwards.
        for k in range(LANES):
            if top[k] < high:
                for i in range(top[k] + 1, high + 1):
                    at = i * _ROW + k
                    kept[k, i - 1, 0], kept[k, i - 1, 1] = work[at], work[at + _E]
                work[high * _ROW + k] = 1.0
                _begin(work, k, high, 0.0)
        at = high
        while at > end:
            stop = end
            for k in range(LANES):
                if top[k] == at:
                    _begin(work, k, at, shifts[k])
                elif at > top[k] > stop:
                    stop = top[k]
            _walk(work, at, stop)
            at = stop
        for k in range(LANES):
            if low[k] < n:
                for i in range(top[k] + 1, high + 1):
                    at = i * _ROW + k
                    work[at], work[at + _E] = kept[k, i - 1, 0], kept[k, i - 1, 1]
                # Below its low end a lane went on over values that are taken: not what counts.
                at = low[k] * _ROW + k
                off, diagonal = work[at + _S] * work[at + _P], shifts[k] + work[at + _G]
                first[k], second[k] = int(work[at + _FIRST]), int(work[at + _SECOND])
                work[at], work[at + _E] = diagonal, off
                if abs(off) <= _TINY * abs(diagonal * work[at + _ROW]):
                    first[k], second[k] = low[k], first[k]
