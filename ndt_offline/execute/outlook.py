"""The outlook of a run: what an analysis would do, in numbers, without doing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ndt_offline.execute.estimate import Estimate, best_workers, duration, estimate, size
from ndt_offline.execute.plan import Plan, make_plan
from ndt_offline.execute.readiness import make_job
from ndt_offline.replay.mark import space_keys
from ndt_offline.replay.setup import Parameters, Setup, prepare, setup_key
from ndt_offline.run.reader import open_run
from ndt_offline.storage.location import locate

TRIED = 4  # checkpoints replayed to measure the time of one, after a first that loads libraries


@dataclass(frozen=True)
class Outlook:
    """A plan, what it measures, and what it will take. Nothing was written."""

    store: Path
    plan: Plan
    setup: Setup
    need: Estimate

    def lines(self, workers: int | None = None) -> Iterator[str]:
        """What `--dry-run` prints."""
        plan, need = self.plan, self.need
        yield f"store: {self.store}" + (" (to be made)" if plan.create else "")
        yield f"checkpoints: {len(plan.steps)}; done: {plan.done}; to replay: {plan.todo}"
        if plan.changed and not plan.create:
            yield "layers, shapes or probe differ from the store's: what they change is replayed"
        for space in self.setup.spaces:
            yield f"{space.name}: {len(space.layers)} layers, {space.width} components at most"
        yield f"blocks: {need.blocks} of {plan.length} checkpoints, one task each"
        yield f"memory: about {size(need.memory)} per process"
        yield f"disk: at most {size(need.disk)} more"
        count = best_workers(need, workers)
        total = need.total(count)
        if need.seconds is not None and total is not None:
            each = f"{1000 * need.seconds:.3g} ms per checkpoint"
            yield f"time: about {duration(total)} with {count} processes ({each}, measured)"


def foresee(
    path: str | Path, out: str | Path | None = None, parameters: Parameters | None = None
) -> Outlook:
    """Plan an analysis and measure a few checkpoints. Writes nothing."""
    parameters = parameters or Parameters()
    run = open_run(path)
    store = locate(out) if out else run.path / "analysis.zarr"
    setup = prepare(run, parameters)
    plan = make_plan(run, store, setup_key(run, parameters), space_keys(setup))
    return Outlook(store, plan, setup, estimate(setup, plan, _seconds(setup, store, plan)))


def _seconds(setup: Setup, store: Path, plan: Plan) -> float | None:
    if not plan.blocks:
        return None
    from ndt_offline.replay.block import BlockRunner

    runner, block = BlockRunner(make_job(setup, store)), plan.blocks[0]
    runner.measure(block, 1)
    return runner.measure(block, TRIED)
