"""Rows of a block that a device replays together."""

from __future__ import annotations

from ndt_offline.errors import NdtError
from ndt_offline.replay.batch import BatchReplayer
from ndt_offline.replay.forward import Row
from ndt_offline.replay.mark import Block
from ndt_offline.run.checkpoint import Decoded
from ndt_offline.run.reader import Decoder


class Group:
    """Measures a row together with those that follow it, and keeps their results until asked.

    A row has the same place in its batch whatever else is to be done: the rows of the store are
    counted in batches from the first on. Places of rows that are done or unusable stay empty.
    """

    def __init__(self) -> None:
        self._ahead: dict[tuple[int, frozenset[str]], Row] = {}

    def measure(
        self,
        replayer: BatchReplayer,
        decoder: Decoder,
        block: Block,
        row: int,
        needs: frozenset[str],
    ) -> Row:
        """The results of one row. Raises NdtError where its checkpoint cannot be used."""
        known = self._ahead.pop((row, needs), None)
        if known is not None:
            return known
        first = row - row % replayer.size
        skipped = {at for at, _ in block.given_up}
        wanted = [at if at >= row else -1 for at in range(first, first + replayer.size)]
        wanted = [at if at in block.todo and at not in skipped else -1 for at in wanted]
        decoded = [_read(decoder, block, at, must=at == row) for at in wanted]
        found = replayer.measure_many(decoded)
        self._ahead = {
            (at, needs): one for at, one in zip(wanted, found, strict=True) if one is not None
        }
        return self._ahead.pop((row, needs))


def _read(decoder: Decoder, block: Block, row: int, must: bool) -> Decoded | None:
    """A checkpoint of the block; of those that come later, what is wrong is told in their turn."""
    if row < 0:
        return None
    try:
        return decoder.read(block.entries[row - block.start])
    except NdtError:
        if must:
            raise
        return None
