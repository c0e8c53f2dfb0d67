"""What the journal says beside the spectra: scalars of every step, restarts of the training."""

from __future__ import annotations

import re

import numpy as np

from ndt_offline.run.attempt import Problem
from ndt_offline.run.reader import Run
from ndt_offline.store import schema
from ndt_offline.store.results import Results

_SCALAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")
_RESERVED = ("step", "quantity", "probe")


def put_signals(run: Run, results: Results) -> list[Problem]:
    """Journal scalars and restarts into the store, where they are not there as they are."""
    starts = [int(attempt.start_step) for attempt in run.attempts[1:]]
    if results.attrs.get("restarts", []) != starts:
        results.root.attrs["restarts"] = starts
    signals, odd = results.root["signals"], []
    for name in run.scalar_names:
        if not _SCALAR_NAME.fullmatch(name) or name in _RESERVED:
            odd.append(
                Problem(
                    f"journal scalar {name[:60]!r} has a name that cannot be kept", run.path.name
                )
            )
            continue
        values = run.scalar(name)
        same = name in signals and np.array_equal(signals[name][:], values, equal_nan=True)
        if not same:
            schema.put_series(
                signals, name, ("step",), values, long_name=f"{name} of the training batch"
            )
    return odd
