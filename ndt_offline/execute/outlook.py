"""The outlook of a run: what an analysis would do, in numbers, without doing it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ndt_offline.execute.estimate import Estimate, best_workers, duration, estimate, size
from ndt_offline.execute.forecast import Forecast, derive_seconds, draw_seconds, replay_seconds
from ndt_offline.execute.keeping import given_up
from ndt_offline.execute.plan import Plan, make_plan
from ndt_offline.execute.prices import prices
from ndt_offline.execute.question import Question
from ndt_offline.execute.readiness import check_time, job_of
from ndt_offline.execute.refusal import refusals
from ndt_offline.execute.standing import known_measures
from ndt_offline.measure.catalogue import choose_measures
from ndt_offline.replay.mark import space_keys
from ndt_offline.replay.setup import Parameters, Setup, layers_of, prepare, setup_key
from ndt_offline.run.reader import open_run
from ndt_offline.storage.location import locate

INTERPRETER = 0.6  # seconds until a command has loaded what every command needs
TRIED = 4  # checkpoints replayed to measure the time of one, after a first that loads libraries


@dataclass(frozen=True)
class Outlook:
    """A plan, what it measures, and what it will take. Nothing was written."""

    store: Path
    plan: Plan
    setup: Setup
    need: Estimate
    question: Question
    start: float  # seconds to load libraries and to read the run
    measures: dict[str, str] = field(default_factory=dict)  # what each costs, or why not at all
    series: dict[str, int] = field(default_factory=dict)  # of each quantity that they return

    def forecast(self, workers: int) -> Forecast:
        """The time of the whole analysis; tries what is derived on one series."""
        layers, rows = sum(len(space.layers) for space in self.setup.spaces), self.plan.todo
        return Forecast(
            self.start,
            replay_seconds(rows, self.need.seconds or 0.0, workers, self.start),
            derive_seconds(layers, len(self.plan.steps), self.question, workers, self.series),
            draw_seconds(layers, self.question, self.series),
        )

    def lines(self, workers: int | None = None) -> Iterator[str]:
        """What `--dry-run` prints."""
        plan, need = self.plan, self.need
        yield f"store: {self.store}" + (" (to be made)" if plan.create else "")
        yield f"checkpoints: {len(plan.steps)}; done: {plan.done}; to replay: {plan.todo}"
        if plan.changed and not plan.create:
            yield "layers, shapes or probe differ from the store's: what they change is replayed"
            rows, options = given_up(self.store, self.setup)
            if rows:
                yield f"{rows} checkpoints measured with {options} would be lost: --out, --replace"
        for space in self.setup.spaces:
            yield f"{space.name}: {len(space.layers)} layers, {space.width} components at most"
        for name, price in self.measures.items():
            yield f"measure {name}: {price}"
        yield f"blocks: {need.blocks} of {plan.length} checkpoints, one task each"
        yield f"memory: about {size(need.memory)} per process"
        yield f"disk: at most {size(need.disk)} more"
        if need.seconds is not None:
            count, each = best_workers(need, workers), f"{1000 * need.seconds:.3g} ms"
            seen = self.forecast(count)
            yield f"time: about {duration(seen.total)} with {count} processes: {seen}"
            yield f"({each} per checkpoint, measured on {TRIED}; the rest tried on one series)"


def foresee(
    path: str | Path,
    out: str | Path | None = None,
    parameters: Parameters | None = None,
    question: Question | None = None,
    measures: Sequence[str] | None = None,
    device: str = "cpu",
) -> Outlook:
    """Plan an analysis and measure a few checkpoints. Writes nothing."""
    began = time.perf_counter()
    parameters, question = parameters or Parameters(), question or Question()
    question.check()
    run = open_run(path)
    store = locate(out) if out else run.path / "analysis.zarr"
    setup = prepare(run, parameters)
    check_time(setup, device)  # before a checkpoint is tried
    chosen = choose_measures(known_measures(store) if measures is None else measures)
    refused = refusals(chosen, setup, run)
    fit = {spec: measure for spec, measure in chosen.items() if spec not in refused}
    plan = make_plan(run, store, setup_key(run, parameters), space_keys(setup), fit)
    start = INTERPRETER + time.perf_counter() - began  # an analysis loads and reads this too
    need = estimate(setup, plan, _seconds(setup, store, plan, device))
    series = {name: len(layers_of(m, setup)) for m in fit.values() for name in m.names}
    costs = prices(chosen, setup, refused)
    return Outlook(store, plan, setup, need, question, start, costs, series)


def _seconds(setup: Setup, store: Path, plan: Plan, device: str) -> float | None:
    if not plan.blocks:
        return None
    from ndt_offline.replay.block import BlockRunner

    job = job_of(plan, setup, store, device)
    anew = plan.create or plan.changed or plan.grows or bool(plan.lost)
    return BlockRunner(job).measure(plan.blocks[0], TRIED, spectra=anew or not plan.measures)
