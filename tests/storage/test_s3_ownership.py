"""Two analyses of one store on an S3 server: the later one takes over, whatever the other does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ndt_offline import open_run
from ndt_offline.errors import NdtError
from ndt_offline.execute import relations
from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.setup import Parameters, prepare, setup_key
from ndt_offline.storage.location import locate
from ndt_offline.store import ownership, schema
from ndt_offline.store.results import Results
from tests.storage.test_s3 import RUN, SLOW, put, quick


def test_the_later_analysis_takes_over(bucket: Any, run_path: Path) -> None:
    put(bucket, run_path)
    run, store = open_run(RUN), locate(f"{RUN}/analysis.zarr")
    setup = prepare(run, Parameters())
    jobs = []
    for _ in range(2):
        plan = make_plan(run, store, setup_key(run, Parameters()))
        jobs.append(make_job(setup, store))
        ready_store(jobs[-1], plan)
    with pytest.raises(NdtError, match="another analysis has taken over"):
        BlockRunner(jobs[0])(plan.blocks[0])
    BlockRunner(jobs[1])(plan.blocks[0])


def test_an_idle_analysis_does_not_undo_a_takeover(bucket: Any, run_path: Path) -> None:
    """One only derives; meanwhile the run has grown, and another takes the store to replay it."""
    journal = run_path / "attempts/0001/journal.jsonl"
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(whole[:45]))
    put(bucket, run_path)
    rows = len(quick(RUN).results.steps)
    assert rows < 81
    later: list[Any] = []

    def start(what: str, done: int, total: int) -> None:
        if what != "deriving":
            return
        journal.write_bytes(b"".join(whole))
        put(bucket, run_path)
        run, store = open_run(RUN), locate(f"{RUN}/analysis.zarr")
        key = setup_key(run, Parameters())
        plan = make_plan(run, store, key)
        later.extend([make_job(prepare(run, Parameters()), store), plan.blocks])
        ready_store(later[0], plan)

    with pytest.raises(NdtError, match="another analysis has taken over"):
        quick(RUN, threshold=6.0, progress=start)
    job, blocks = later
    job.check_token()
    BlockRunner(job)(blocks[-1])
    assert Results(job.store).steps.tolist() == open_run(run_path).steps


@pytest.mark.parametrize("late", ["newest", *(["consolidate"] if SLOW else [])])
def test_what_is_said_late_leaves_what_another_said(
    bucket: Any, run_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The takeover comes in the last moment: before the newest answers are named, or after."""
    put(bucket, run_path)
    quick(RUN)
    home: Any = relations if late == "newest" else schema
    name = "put_phases" if late == "newest" else "collect"
    original, taken = getattr(home, name), []

    def then(*given: Any, **named: Any) -> Any:
        found = original(*given, **named)
        taken.append(ownership.take(locate(f"{RUN}/analysis.zarr")))
        return found

    monkeypatch.setattr(home, name, then)
    with pytest.raises(NdtError, match="another analysis has taken over"):
        quick(RUN, threshold=6.0)
    ownership.check_owner(locate(f"{RUN}/analysis.zarr"), taken[0])
