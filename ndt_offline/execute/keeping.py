"""Keeping: what a store holds is hours of work, and is given up only where that was said."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.execute.plan import Plan
from ndt_offline.replay.mark import space_keys
from ndt_offline.replay.setup import Parameters, Setup
from ndt_offline.run.reader import Run
from ndt_offline.store.growth import as_text
from ndt_offline.store.results import Results
from ndt_offline.store.schema import MEASURES


def check_kept(run: Run, plan: Plan, store: Path, setup: Setup) -> None:
    """Raise NdtError where rows that are done would be given up unasked.

    UsageError where other options of the replay do that. Another probe, graph or run is no
    option: what was measured with the old one is worth nothing.
    """
    if plan.create:
        return
    if not plan.changed:
        _check_read(run, plan, store)
        return
    rows, options = given_up(store, setup)
    if rows:
        raise UsageError(
            f"holds {rows} checkpoints measured with {options}; other options would replace them",
            path=store,
            remedy="--out OTHER.zarr to have both, the same options again, or --replace",
        )


def _check_read(run: Run, plan: Plan, store: Path) -> None:
    """The same where a part of the run could not be read this time."""
    unread = [p for p in run.problems if p.what.startswith(("cannot be read", "cannot be listed"))]
    if not unread:
        return
    results = Results(store)
    done = results.usable & (results.fingerprints != 0)
    done[list(plan.lost)] = False  # their values are
    goes = np.arange(len(done)) >= plan.unchanged
    for block in plan.blocks if not plan.measures else ():  # of which a row may lack one alone
        goes[[row for row in block.todo if row < len(goes)]] = True
    if (done & goes).any():
        raise NdtError(
            f"{unread[0].what}; {int((done & goes).sum())} checkpoints that are measured would go",
            path=unread[0].path,
            remedy="the same command again; if it stays so, another --out, or --replace",
        )


def given_up(store: Path, setup: Setup) -> tuple[int, str]:
    """Rows that a replay with these options would empty, and the options they were made with."""
    results = Results(store)
    stored = (results.attrs["setup"] or {}).get("parameters")
    if stored is None:
        return 0, ""
    before, now = (asdict(Parameters()) | x for x in (stored, asdict(setup.parameters)))
    if json.dumps(before) == json.dumps(now):
        return 0, ""
    had, want = results.attrs.get("spaces", {}), as_text(space_keys(setup))
    lost = [s.name for s in results.spaces if s.layers and had.get(s.name) != want[s.name]]
    measured = np.asarray(results.root["records/measured"][:])
    done = [measured[:, MEASURES.index(name)] != 0 for name in lost]
    return (int(np.any(done, axis=0).sum()) if done else 0), options_of(before)


def options_of(parameters: Mapping[str, Any]) -> str:
    """Parameters of a replay as a user gives them."""
    default, words = asdict(Parameters()), []
    for name, value in parameters.items():
        option = {"shapes": "--as"}.get(name, f"--{name.replace('_', '-')}")
        if json.dumps(value) == json.dumps(default.get(name)):
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            text = "=".join(one) if isinstance(one, list | tuple) else str(one)
            words.append(option if value is True else f"{option} {shlex.quote(text)}")
    return " ".join(words) or "the default options"
