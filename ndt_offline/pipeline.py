"""The story of an analysis: discover, plan, replay, derive, report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndt_offline.execute.estimate import check_fits, estimate
from ndt_offline.execute.lock import locked
from ndt_offline.execute.plan import Plan, make_plan
from ndt_offline.execute.question import Question
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.replay.setup import Parameters, Setup, prepare, setup_key
from ndt_offline.run.attempt import Problem
from ndt_offline.run.reader import Run, open_run
from ndt_offline.store import schema
from ndt_offline.store.results import Results

if TYPE_CHECKING:
    from ndt_offline.execute.replay_all import Executor

Progress = Callable[[str, int, int], None]  # what is being done, rows done, rows in all

_SCALAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")
_RESERVED = ("step", "quantity", "probe")


@dataclass(frozen=True)
class Result:
    """What an analysis gives.

    store: path of the Zarr store. table: one dictionary per series (space, layer, metric), the
    same as `ndt-analyze --json` prints. problems: what could not be used, and why.
    """

    run: str
    store: Path
    table: list[dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replayed: int = 0

    @property
    def results(self) -> Results:
        """The store, opened for reading."""
        return Results(self.store)

    @property
    def exit_code(self) -> int:
        """0 all well, 3 finished but some input could not be used."""
        return 3 if self.problems else 0


def analyze(
    path: str | Path,
    *,
    out: str | Path | None = None,
    parameters: Parameters | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    **question: Any,
) -> Result:
    """Analyse one run: what `ndt-analyze PATH` does.

    out: the store, `analysis.zarr` in the run by default.
    parameters: of the replay (layers, shapes, centring); another choice replays anew.
    executor: where blocks run, by default in this process.
    question: fields of `Question`: metrics, detector, threshold, params, draws, seed, smooth.

    What is already in the store is not computed again: a new threshold opens no checkpoint.
    Raises UsageError for what cannot be opened; unusable checkpoints are in `.problems`.
    """
    asked = Question(**question)
    told = progress or (lambda what, done, total: None)
    parameters = parameters or Parameters()

    run = open_run(path)
    store = Path(out) if out else run.path / "analysis.zarr"
    with locked(store):
        plan = make_plan(run, store, setup_key(run, parameters))
        if not plan.idle:
            _replay(store, plan, prepare(run, parameters), executor, told)
        results = Results(store)
        scalars = _put_signals(run, results)

        from ndt_offline.execute.derive import derive
        from ndt_offline.report.summary import summary_rows

        told("deriving", 0, 0)
        schema.forget_consolidated(store)
        derive(results, asked)
        schema.consolidate(store)
        return Result(
            run=str(run.path),
            store=store,
            table=summary_rows(results),
            problems=[*run.problems, *scalars, *_problems(run, results)],
            notes=_notes(run, results),
            replayed=plan.todo,
        )


def _replay(
    store: Path, plan: Plan, setup: Setup, executor: Executor | None, told: Progress
) -> None:
    """Bring the store to the run's present rows, and every row to `done`."""
    job = make_job(setup, store)
    check_fits(estimate(setup, plan), store)
    ready_store(job, plan)
    if not plan.blocks:
        return
    from ndt_offline.execute.replay_all import in_process

    count = _Counter(plan.todo, told)
    with closing((executor or in_process)(job, plan.blocks, count)) as reports:
        for report in reports:
            count.failed += len(report.problems)


class _Counter:
    """Rows begun, told on; a block that runs twice counts once."""

    def __init__(self, total: int, told: Progress) -> None:
        self.done, self.failed, self.total, self.told = 0, 0, total, told
        told("replaying", 0, total)

    def __call__(self, rows: int) -> None:
        self.done = min(self.done + rows, self.total)
        what = f"replaying, {self.failed} unusable" if self.failed else "replaying"
        self.told(what, self.done, self.total)


def _put_signals(run: Run, results: Results) -> list[Problem]:
    """Journal scalars into the store, where they are not there as they are."""
    import numpy as np

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


def _problems(run: Run, results: Results) -> list[Problem]:
    """What the replay could not use: each checkpoint, and parts of the run."""
    setup = results.attrs["setup"]
    remedy = f"ndt-offline verify {run.path}"
    found = [Problem(**problem) for problem in setup["problems"]]
    for step, why in results.unusable():
        path, _, what = why.rpartition(": ") if ": " in why else ("", "", why)
        found.append(Problem(what or why, path or str(run.path), step, remedy))
    return found


def _notes(run: Run, results: Results) -> list[str]:
    return list(_each_note(run, results))


def _each_note(run: Run, results: Results) -> Iterator[str]:
    setup = results.attrs["setup"]
    yield from setup["notes"]
    if run.hidden:
        yield f"{run.hidden} checkpoints of earlier attempts are hidden by a later one"
    if setup["skipped"]:
        names = ", ".join(name for name, _ in setup["skipped"][:5])
        yield f"{len(setup['skipped'])} layers skipped ({names}): {setup['skipped'][0][1]}"
    for space in results.spaces:
        for layer, count in zip(space.layers, results.not_finite(space.name), strict=True):
            if count:
                yield f"{space.name} of {layer.name}: NaN or infinite at {count} steps"
