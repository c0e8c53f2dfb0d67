"""Faults around the replay: workers that die, a scheduler that goes, a disk that is full."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from execute_runs import SLOW, assert_same, plan_of, replay
from test_executors import POISON, poisoned  # noqa: F401  (a fixture)

from ndt_offline import analyze, open_run
from ndt_offline.errors import NdtError, RefusedError
from ndt_offline.execute.cluster import HERE, local_client, remote_client
from ndt_offline.execute.estimate import Estimate, best_workers, check_fits, estimate
from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.spread import Spread
from ndt_offline.measure.catalogue import MEASURES, choose_measures
from ndt_offline.replay.mark import space_keys
from ndt_offline.replay.setup import Parameters, prepare, setup_key

KILLS = 60 if SLOW else 5


@pytest.mark.slow
def test_a_random_worker_killed_every_second(
    poisoned: Callable[[str], Path],  # noqa: F811
    whole: Path,
    tmp_path: Path,
) -> None:
    run = poisoned("all:slow")
    chance, killed, stop = random.Random(3), [], threading.Event()

    def reap(client: object) -> None:
        while not stop.wait(1.0) and len(killed) < KILLS:
            workers = list(client.nthreads())  # type: ignore[attr-defined]
            pids = client.run(os.getpid, workers=workers, on_error="ignore")  # type: ignore[attr-defined]
            if pids:
                victim = chance.choice(sorted(pids.values()))
                psutil.Process(victim).kill()
                killed.append(victim)

    with local_client(2) as client:
        reaper = threading.Thread(target=reap, args=(client,), daemon=True)
        reaper.start()
        for attempt in range(10):  # a slow machine kills fewer in the time of one
            store = tmp_path / f"{attempt}.zarr"
            replay(run, store, executor=Spread(client))
            assert_same(store, whole)
            if len(killed) >= 3:
                break
        stop.set()
        reaper.join(60)
    assert len(killed) >= 3


def test_without_workers_it_stops_with_a_clear_error(recorded: Path, tmp_path: Path) -> None:
    with local_client(0) as client:
        started = time.monotonic()
        with pytest.raises(NdtError, match="no worker is left") as caught:
            replay(recorded, tmp_path / "a.zarr", executor=Spread(client, grace=2))
        assert 2 <= time.monotonic() - started < 80  # GRACE is 90
        assert "goes on where it stopped" in str(caught.value)


def test_a_scheduler_that_is_lost_stops_it_and_it_goes_on_later(
    poisoned: Callable[[str], Path],  # noqa: F811
    whole: Path,
    tmp_path: Path,
) -> None:
    run, store, file = poisoned("all:slow"), tmp_path / "a.zarr", tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    options = ["--scheduler-file", str(file), "--host", HERE, "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    scheduler = subprocess.Popen([*dask, "scheduler", *options, "--port", "0"], **quiet)  # type: ignore[call-overload]
    worker = subprocess.Popen(
        [*dask, "worker", *options, "--nthreads", "1", "--no-nanny"],
        **quiet,  # type: ignore[call-overload]
    )
    try:
        with (
            pytest.raises(NdtError, match=r"scheduler is gone|no worker is left"),
            remote_client(None, file) as client,
        ):
            killer = threading.Timer(4.0, scheduler.kill)
            killer.start()
            replay(run, store, executor=Spread(client, grace=3))
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    (run / "poison").unlink()
    left = plan_of(run, store).todo
    assert left > 0
    replay(run, store)
    assert_same(store, whole)


def test_a_full_disk_stops_it_and_it_goes_on_later(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    child = os.fork()
    if child == 0:
        # A limit on the size of files fails a write halfway, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        try:
            replay(recorded, store)
        except OSError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    replay(recorded, store)
    assert_same(store, whole)


def test_what_cannot_fit_is_refused_with_numbers(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"about 3 GB of memory, 2 GB are free"):
        check_fits(Estimate(10, 1, 3 * 10**9, 0), tmp_path / "a.zarr", memory=2 * 10**9)
    with pytest.raises(RefusedError, match=r"10 checkpoints give up to 1e\+03 PB|TB"):
        check_fits(Estimate(10, 1, 1, 10**17), tmp_path / "a.zarr")


def test_a_measure_that_is_added_needs_no_room_for_spectra(run_path: Path) -> None:
    def need(*names: str) -> Estimate:
        run, measures = open_run(run_path), choose_measures(names)
        setup, store = prepare(run, Parameters()), run_path / "analysis.zarr"
        key = setup_key(run, Parameters())
        return estimate(setup, make_plan(run, store, key, space_keys(setup), measures))

    fresh = need()
    spectra = 81 * 8 * 2 * (8 + 8)  # two layers of each space, at most 8 components
    assert fresh.disk == spectra
    assert need("motion").disk == spectra + 81 * 8 * 2 * len(MEASURES["motion"].names)
    analyze(run_path, report=False, draws=0, phases=(), metrics=("stable_rank",))
    added = need("motion", "curvature")
    assert added.rows == 81
    assert added.disk == 81 * 8 * (2 * len(MEASURES["motion"].names) + 3)
    weights = 4 * (12 * 8 + 8 * 4)
    assert added.memory - need("motion").memory >= 60 * weights
    assert need("gradients").memory - need("motion").memory >= 2 * 32 * 4 * 12 * 8


def test_workers_are_as_many_as_memory_and_blocks_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    from ndt_offline.execute import estimate

    monkeypatch.setattr(estimate, "cores", lambda: 16)
    monkeypatch.setattr(estimate, "free_memory", lambda: 10 * 10**9)
    assert best_workers(Estimate(9999, 100, 3 * 10**9, 0)) == 3
    assert best_workers(Estimate(9999, 100, 10**8, 0)) == 16
    assert best_workers(Estimate(9999, 5, 10**8, 0)) == 5
    assert best_workers(Estimate(9999, 5, 10**8, 0), asked=7) == 7
