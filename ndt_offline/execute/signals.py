"""What the journal says beside the spectra: scalars of every step, restarts of the training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ndt_offline.errors import UsageError, nearest
from ndt_offline.execute.question import TARGETS
from ndt_offline.run.reader import Run
from ndt_offline.store import schema
from ndt_offline.store.arrays import put_series
from ndt_offline.store.results import OWN_SIGNALS, PROBE, Results

_SCALAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")
_ODD = re.compile(r"[^A-Za-z0-9_.\-]+")
_PREFIX = "journal_"
LONGEST = 80  # of a name that is changed


def put_signals(run: Run, results: Results) -> None:
    """Journal scalars and restarts into the store, where they are not there as they are."""
    starts = [int(attempt.start_step) for attempt in run.attempts[1:]]
    if results.attrs.get("restarts", []) != starts:
        results.say(restarts=starts)
    signals, kept = results.root["signals"], {*OWN_SIGNALS}
    for name, stored in stored_names(run.scalar_names).items():
        values, about = run.scalar(name), f"{name} of the training batch"
        kept.add(stored)
        if not _stands(signals.get(stored), values, about):
            put_series(signals, stored, ("step",), values, long_name=about)
    for name in set(signals) - kept:  # of checkpoints that a later attempt hides
        del signals[name]


def _stands(array: Any, values: np.ndarray, about: str) -> bool:
    """Whether a signal is there with these values, and says what it is."""
    if array is None or array.attrs.get("long_name") != about:
        return False
    return np.array_equal(array[:], values, equal_nan=True)


def renamed(run: Run) -> list[str]:
    """A sentence for each scalar whose name cannot be that of a signal."""
    return [
        f"journal scalar {name[:60]!r} is kept as {stored!r}"
        for name, stored in stored_names(run.scalar_names).items()
        if not _fits(name)
    ]


def check_targets(names: Iterable[str], run: Run) -> None:
    """UsageError for a target that the run has not recorded; the usual ones may be missing."""
    stored = stored_names(run.scalar_names).values()
    known = dict.fromkeys([*TARGETS, *stored, *(PROBE + name for name in schema.QUANTITIES)])
    for name in names:
        if name not in known:
            raise UsageError(f"--target {name!r}: no such signal", remedy=nearest(name, known))


def stored_names(scalars: Iterable[str]) -> dict[str, str]:
    """{scalar: the name it has among the signals}; no two have the same.

    Names that quantities of the probe have, or could have, get `journal_` in front. Of others,
    what a name may not hold becomes a dot: `train/loss` is `train.loss`.
    """
    names = sorted(scalars, key=lambda name: not _fits(name))  # those that stay come first
    found: dict[str, str] = {}
    for name in names:
        wanted = stored = _signal_name(name)
        count = 1
        while stored in found.values():
            count += 1
            stored = f"{wanted}_{count}"
        found[name] = stored
    return found


def _fits(scalar: str) -> bool:
    odd = scalar.startswith("__") or scalar.lower() == "zarr.json" or scalar in OWN_SIGNALS
    return not odd and _SCALAR_NAME.fullmatch(scalar) is not None


def _signal_name(scalar: str) -> str:
    plain = scalar if _fits(scalar) else _ODD.sub(".", scalar)[:LONGEST]
    clear = _fits(plain) and not plain.startswith((PROBE, _PREFIX))
    return plain if clear else _PREFIX + plain
