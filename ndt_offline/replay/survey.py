"""The measures of one block: which rows lack them, what they may look back at, and their marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndt_offline.errors import NdtError
from ndt_offline.measure.plugin import Measure
from ndt_offline.replay.history import Spot, lacking_mark, measure_mark, rows_behind
from ndt_offline.replay.job import Job
from ndt_offline.replay.ledger import Ledger
from ndt_offline.replay.mark import Block
from ndt_offline.replay.witness import FAULTS, Sight, Watch, Witness
from ndt_offline.run.attempt import Entry
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Decoder
from ndt_offline.storage.location import locate


class Survey:
    """Takes a row through `begin`, `finish` and `put`; `write` at the end of the block."""

    def __init__(
        self,
        job: Job,
        block: Block,
        decoder: Decoder,
        witness: Witness,
        measures: Mapping[str, Measure],
        stored: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._keys, self._block, self._witness, self._measures = (
            job.measures,
            block,
            witness,
            measures,
        )
        self._near, self._far = decoder, Decoder(locate(job.setup.run), block.ends)
        self._ledgers = {spec: Ledger(job, block, stored[spec]) for spec in stored}
        self._distant: dict[str, Decoded | None] = {}
        self._sight: Sight | None = None
        self._unread: dict[str, str] = {}  # need: why that row could not be read

    def lacking(self, row: int) -> tuple[str, ...]:
        """The measures that this row still lacks."""
        return tuple(name for name in self._measures if not self._stands(name, row))

    def begin(self, row: int, names: tuple[str, ...]) -> Watch | None:
        """What the forward pass of a row is to be watched by, if anything looks at it."""
        self._sight, self._unread = self._witness.open(names), {}
        if not self._witness.watches(names):
            return None
        updates = self._updates(row)
        return self._witness.see(self._sight, lambda need: self._fetch(need, row), updates)

    def finish(self, row: int, decoded: Decoded, problem: str) -> None:
        """The measures that need no layer's activations; problem: of the forward pass."""
        sight = self._sight
        if sight is None:
            return
        spot = Spot(row, self._updates(row), self._earlier)
        try:
            self._witness.weigh(sight, decoded, lambda need: self._fetch(need, row), spot)
        except (NdtError, *FAULTS) as error:
            said = f"step {self._entry(row).step}: {type(error).__name__}: {error}"
            sight.problems |= {name: said for name in sight.values if name not in sight.problems}
        self._witness.keep(row, sight)
        self._witness.remember(row, decoded)
        watching = [name for name in sight.values if self._measures[name].forward and problem]
        sight.problems |= dict.fromkeys(watching, problem)
        sight.finished = True

    def put(self, row: int, names: tuple[str, ...], problem: str = "") -> None:
        """Keep what a row gave; problem: why it gave nothing."""
        sight, self._sight = self._sight, None
        problem = "" if sight and sight.finished else problem
        for name in names:
            measure = self._measures[name]
            values = sight.values.get(name) if sight and not problem else None
            said = problem or (sight.problems.get(name, "") if sight else "")
            needs = {*measure.needs, *rows_behind(measure, row)}
            unread = [why for need, why in self._unread.items() if need in needs]
            mark = self._mark(name, row)
            if problem or unread or said:
                mark = self._lacking(name, row, mark)
            self._ledgers[name].put(row, values, said or "; ".join(unread), mark)

    def write(self) -> None:
        for ledger in self._ledgers.values():
            ledger.write()

    def _stands(self, name: str, row: int) -> bool:
        mark = self._ledgers[name].mark(row)
        if not mark:
            return False
        whole = self._mark(name, row)
        return mark == whole or mark == self._lacking(name, row, whole)

    def _mark(self, name: str, row: int) -> int:
        return measure_mark(self._keys[name], self._entry(row), self._behind(name, row))

    def _lacking(self, name: str, row: int, mark: int) -> int:
        needs = rows_behind(self._measures[name], row)
        windows = [self._window_of(need, at) for need, at in needs.items()]
        return lacking_mark(mark, [self._block.window(row), *windows])

    def _window_of(self, need: str, row: int) -> Sequence[Entry]:
        ends = {"first": self._block.ends[:1], "last": self._block.ends[1:]}
        return ends.get(need) or self._block.window(row)

    def _behind(self, name: str, row: int) -> list[Entry]:
        needs = rows_behind(self._measures[name], row)
        return [self._entry_of(need, at) for need, at in needs.items()]

    def _updates(self, row: int) -> int:
        before = self._block.entry(row - 1)
        return self._entry(row).step - before.step if before else 0

    def _entry(self, row: int) -> Entry:
        return self._block.entries[row - self._block.start]

    def _entry_of(self, need: str, row: int) -> Entry:
        if need in ("first", "last"):
            return self._block.ends[0 if need == "first" else -1]
        found = self._block.entry(row)
        assert found is not None, f"row {row} is behind a block that begins at {self._block.start}"
        return found

    def _fetch(self, need: str, row: int) -> tuple[int, Decoded] | None:
        """(row, checkpoint) of a need; None where there is none, or it cannot be read."""
        rows = {n: at for m in self._measures.values() for n, at in rows_behind(m, row).items()}
        if need not in rows:
            return None
        if need in ("first", "last"):
            decoded = self._distant.get(need) or self._read(self._far, need, row)
            self._distant[need] = decoded
        else:
            decoded = self._witness.recall(rows[need]) or self._read(self._near, need, rows[need])
        return None if decoded is None else (rows[need], decoded)

    def _earlier(self, row: int) -> Any:
        decoded = self._witness.recall(row) or self._read(self._near, f"chain {row}", row)
        return None if decoded is None else self._witness.state(decoded)

    def _read(self, decoder: Decoder, need: str, row: int) -> Decoded | None:
        try:
            decoded = decoder.read(self._entry_of(need, row))
            if decoder is self._near:
                self._witness.remember(row, decoded)
            return decoded
        except NdtError as error:
            named = "an earlier" if need.startswith("chain") else f"the {need.replace('_', ' ')}"
            self._unread[need] = f"{named} row cannot be read: {error.what}"
            return None
