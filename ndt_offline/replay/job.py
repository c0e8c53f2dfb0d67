"""A job: everything that a process, here or elsewhere, must know to replay blocks into a store."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from ndt_offline.replay.setup import Setup
from ndt_offline.storage.location import locate
from ndt_offline.store.ownership import check_owner

HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """When a checkpoint is given up: seconds without an end, bytes of memory when it runs alone."""

    seconds: float = HOUR
    memory: int = 0  # 0: what the machine has


@dataclass(frozen=True)
class Job:
    """A prepared replay and where its results go.

    keys: identity of what is measured in each space.
    measures: {how it is named: identity} of what is computed beside the spectra.
    token: of the analysis that holds the store; a task of an earlier one, still running
        somewhere, finds another token there and writes nothing.
    device: what replays, as `device.find_device` reads it where the work is done. It is no part
        of any key: results differ as they do between processors, by rounding.
    compiled: whether small matrices are reduced, and layers of several checkpoints solved together,
        by what numba compiles. It rounds otherwise, so it is the same for all of a store's life.
    """

    setup: Setup
    store: str
    keys: dict[str, int]
    limits: Limits = Limits()
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    measures: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    compiled: bool = False

    def check_token(self) -> None:
        """Raise NdtError where the store belongs to another analysis by now."""
        check_owner(locate(self.store), self.token)
