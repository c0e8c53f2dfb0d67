"""What the journal says beside the spectra: scalars of every step, restarts of the training."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ndt_offline.errors import UsageError, nearest
from ndt_offline.execute.question import TARGETS
from ndt_offline.run.attempt import Problem
from ndt_offline.run.reader import Run
from ndt_offline.store import schema
from ndt_offline.store.results import OWN_SIGNALS, PROBE, Results

_SCALAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")
_PREFIX = "journal_"


def put_signals(run: Run, results: Results) -> list[Problem]:
    """Journal scalars and restarts into the store, where they are not there as they are."""
    starts = [int(attempt.start_step) for attempt in run.attempts[1:]]
    if results.attrs.get("restarts", []) != starts:
        results.say(restarts=starts)
    signals, odd, kept = results.root["signals"], [], {*OWN_SIGNALS}
    for name in run.scalar_names:
        stored = signal_name(name)
        if stored is None:
            odd.append(
                Problem(
                    f"journal scalar {name[:60]!r} has a name that cannot be kept", run.path.name
                )
            )
            continue
        values = run.scalar(name)
        kept.add(stored)
        if stored not in signals or not np.array_equal(signals[stored][:], values, equal_nan=True):
            about = f"{name} of the training batch"
            schema.put_series(signals, stored, ("step",), values, long_name=about)
    for name in set(signals) - kept:  # of checkpoints that a later attempt hides
        del signals[name]
    return odd


def check_targets(names: Iterable[str], run: Run) -> None:
    """UsageError for a target that the run has not recorded; the usual ones may be missing."""
    stored = filter(None, map(signal_name, run.scalar_names))
    known = dict.fromkeys([*TARGETS, *stored, *(PROBE + name for name in schema.QUANTITIES)])
    for name in names:
        if name not in known:
            raise UsageError(f"--target {name!r}: no such signal", remedy=nearest(name, known))


def signal_name(scalar: str) -> str | None:
    """The name that a journal scalar has among the signals; None where it cannot be kept.

    Names that quantities of the probe have, or could have, get `journal_` in front.
    """
    odd = scalar.startswith("__") or scalar.lower() == "zarr.json"
    if odd or scalar in OWN_SIGNALS or not _SCALAR_NAME.fullmatch(scalar):
        return None
    return _PREFIX + scalar if scalar.startswith((PROBE, _PREFIX)) else scalar
