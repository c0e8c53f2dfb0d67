"""The trial of the p: how often wrong on independent pairs, how often right on coupled ones."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from ndt_offline.relate.beyond import PARTS
from ndt_offline.relate.cells import COUPLED, LAGGED, NULLS
from ndt_offline.relate.combine import benjamini_hochberg
from ndt_offline.relate.couplings import ALPHA, couplings_table
from ndt_offline.relate.levels import Columns
from ndt_offline.relate.ranks import Floats

# Pairs come in groups of this many series and targets: enough for bulk, little is thrown away.
GROUP = 10


@dataclass(frozen=True)
class TrialCell:
    """One kind of pair. `truth` is independent, coupled or lagged; rates are shares of `pairs`.

    at_5, at_1     p <= .05, p <= .01: false positives of independent pairs, else power
    shift, detrended, differenced, lag    the same of the four parts at .05
    verdict        q <= .05 among these pairs and as many independent ones of the same kind
                   (of independent pairs: among themselves)
    """

    name: str
    truth: str
    pairs: int
    at_5: float
    at_1: float
    shift: float
    detrended: float
    differenced: float
    lag: float
    verdict: float


def relate_battery(pairs: int = 200, n: int = 1600, seed: int = 0) -> list[TrialCell]:
    """Every cell of independent, coupled and lagged pairs, `pairs` of each (a multiple of 10)."""
    cells = [null_cell(name, pairs, n, seed) for name in NULLS]
    return cells + [coupled_cell(name, pairs, n, seed) for name in (*COUPLED, *LAGGED)]


def null_cell(name: str, pairs: int, n: int, seed: int) -> TrialCell:
    """False positives of one kind of independent pairs."""
    rng = _generator(name, seed)
    draw = NULLS[name]
    tables = [
        _diagonal(couplings_table(draw(rng, GROUP, n), draw(rng, GROUP, n)), 0)
        for _ in range(pairs // GROUP)
    ]
    return _cell(name, "independent", _joined(tables), None)


def coupled_cell(name: str, pairs: int, n: int, seed: int) -> TrialCell:
    """Power on one kind of coupled pairs; each series with the next one's target is independent."""
    rng = _generator(name, seed)
    draw = COUPLED[name] if name in COUPLED else LAGGED[name]
    tables = [couplings_table(*draw(rng, GROUP, n)) for _ in range(pairs // GROUP)]
    own = _joined([_diagonal(table, 0) for table in tables])
    other = _joined([_diagonal(table, 1) for table in tables])
    return _cell(name, "coupled" if name in COUPLED else "lagged", own, other["p"])


def _cell(name: str, truth: str, table: Columns, others: Floats | None) -> TrialCell:
    p = table["p"]
    among = p if others is None else np.append(p, others)
    q = benjamini_hochberg(among)[: len(p)]

    def share(values: Floats, level: float = ALPHA) -> float:
        return float(np.mean(values <= level))

    parts = {part.removeprefix("p_"): share(table[part]) for part in PARTS}
    return TrialCell(name, truth, len(p), share(p), share(p, 0.01), verdict=share(q), **parts)


def _generator(name: str, seed: int) -> np.random.Generator:
    # Each cell has its own stream: a cell more or less changes no other.
    return np.random.default_rng([seed, crc32(name.encode())])


def _diagonal(table: Columns, offset: int) -> Columns:
    at = np.arange(GROUP)
    return {name: column[at, (at + offset) % GROUP] for name, column in table.items()}


def _joined(tables: list[Columns]) -> Columns:
    return {name: np.concatenate([table[name] for table in tables]) for name in ("p", *PARTS)}
