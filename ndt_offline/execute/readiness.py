"""Readiness: a store brought to the rows and layers of a plan, before anything is replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndt_offline.errors import RefusedError
from ndt_offline.execute.estimate import duration
from ndt_offline.execute.plan import Plan
from ndt_offline.measure.catalogue import choose_measures
from ndt_offline.replay.device import find_device
from ndt_offline.replay.gain import COMPILED, is_worth
from ndt_offline.replay.history import depends
from ndt_offline.replay.job import Job, Limits
from ndt_offline.replay.mark import space_keys
from ndt_offline.replay.processors import cores
from ndt_offline.replay.setup import Setup, layers_of
from ndt_offline.storage.location import locate
from ndt_offline.store.growth import as_text, grow, make_store, open_store, same_rows
from ndt_offline.store.measures import GROUP, create_measure, key_of_measure
from ndt_offline.store.ownership import WRITER, take, write_attributes
from ndt_offline.store.schema import open_root

FASTEST = {"cpu": 1e12, "": 1e15}  # operations a second that no core, and no GPU, reaches


def make_job(
    setup: Setup,
    store: Path,
    limits: Limits | None = None,
    measures: Mapping[str, str] | None = None,
    device: str = "cpu",
    compiled: bool = False,
) -> Job:
    """What a process must know to replay; paths are absolute, because workers stand elsewhere."""
    from dataclasses import replace

    config = str(locate(setup.config).absolute()) if setup.config else ""
    setup = replace(setup, run=str(locate(setup.run).absolute()), config=config)
    return Job(
        setup, str(store.absolute()), space_keys(setup), limits or Limits(),
        measures=dict(measures or {}), device=device, compiled=compiled,
    )  # fmt: skip


def job_of(plan: Plan, setup: Setup, store: Path, device: str = "cpu") -> Job:
    """The job that a plan asks for."""
    compiled = is_compiled(setup, plan, store, device)
    return make_job(setup, store, measures=plan.measures, device=device, compiled=compiled)


def is_compiled(setup: Setup, plan: Plan, store: Path, device: str) -> bool:
    """Whether what numba compiles is used: in a new store where it pays, in others as before."""
    if plan.create:
        return device == "cpu" and is_worth(setup, plan.todo // cores())
    return bool(open_root(store).attrs.get(COMPILED))


def check_time(setup: Setup, device: str = "cpu", limits: Limits | None = None) -> None:
    """Raise RefusedError where no machine of this kind replays a checkpoint within the limit.

    A graph is data from a file: it may be legal, and ask for a year. `auto` is what is here.
    """
    device = find_device(device) if device == "auto" else device
    seconds, rate = (limits or Limits()).seconds, FASTEST.get(device, FASTEST[""])
    least = setup.flops / rate
    if least > seconds:
        raise RefusedError(
            f"one checkpoint takes {setup.flops:.1e} operations, {duration(least)} at "
            f"{rate:.0e} a second; it is given up after {duration(seconds)}",
            path=setup.run,
            remedy="--layers that name weights alone, or a smaller --probe",
        )


def ready_store(job: Job, plan: Plan) -> None:
    """Make, grow or change the store; it then belongs to this job.

    Spaces whose layers are what they were keep their rows.
    """
    store, setup = locate(job.store), job.setup
    if plan.create:
        root = make_store(store, setup.spaces, plan.length, job.keys)
    else:
        take(store, job.token)  # first: a task of an earlier analysis stops at its next block
        root = open_store(store, setup.spaces, job.keys)
    if not same_rows(root, plan.steps) or plan.grows:
        grow(root, plan.steps, plan.unchanged)
    for name in ("records/spectra", "records/measured"):
        forget(root[name], plan.lost)
    _ready_measures(root, job, plan)
    devices = sorted({*(root.attrs.get("devices") or []), job.device.partition(":")[0]})
    about = {WRITER: job.token, "setup": setup.about(), "devices": devices, COMPILED: job.compiled}
    write_attributes(root, store, about, None if plan.create else job.token)


def forget(marks: Any, rows: Sequence[int]) -> None:
    """Set the marks of these rows to 0; each chunk is read and written once."""
    if len(rows):
        marks.oindex[np.asarray(rows)] = 0


def _ready_measures(root: Any, job: Job, plan: Plan) -> None:
    """A group for each measure; those that are what they were keep their rows."""
    for spec, measure in choose_measures(tuple(job.measures)).items():
        key = job.measures[spec]
        if key_of_measure(root, measure.name) == key:
            forget(root[f"{GROUP}/{measure.name}/mark"], plan.redone.get(spec, ()))
            continue
        create_measure(
            root,
            measure.name,
            layers_of(measure, job.setup),
            {quantity.name: quantity.unit for quantity in measure.quantities},
            about=measure.about,
            meanings={quantity.name: quantity.about for quantity in measure.quantities},
            parameters=dict(measure.params),
            space=measure.space,
            depends={space: as_text(job.keys)[space] for space in depends(measure)},
            own=":" in spec,
            key=key,
        )
