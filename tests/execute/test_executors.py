"""The same tests in a child of this process, on a local cluster, and on a scheduler by TCP."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import psutil
import pytest
from execute_runs import (
    arrays_of,
    assert_same,
    checkpoint_path,
    cut_to,
    outcomes,
    plan_of,
    replay,
    rows_replayed,
)

from ndt_offline import open_run
from ndt_offline.errors import NdtError, UsageError
from ndt_offline.execute import replay_all
from ndt_offline.execute.cluster import (
    HERE,
    check_address,
    gpu_options,
    is_open,
    local_client,
    local_options,
    remote_client,
)
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.execute.replay_all import Automatic, Cluster, Executor, Reports, in_process
from ndt_offline.execute.spread import Spread
from ndt_offline.replay.job import Job, Limits
from ndt_offline.replay.mark import Block, BlockReport
from ndt_offline.replay.setup import Parameters, prepare
from ndt_offline.store.schema import OUTCOME

POISON = Path(__file__).parent / "poison"
EXECUTORS = ("in process", "local cluster", "scheduler")


@pytest.fixture(scope="module")
def poisonable() -> Iterator[None]:
    """Processes started from here on know the poison."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(POISON), *filter(None, sys.path)]))
        # A scheduler of one's own may be strict: a block whose worker died once runs alone.
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
        yield


@pytest.fixture(scope="module")
def local(poisonable: None) -> Iterator[Executor]:
    with local_client(2) as client:
        yield Spread(client)


@pytest.fixture(scope="module")
def scheduler(poisonable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`dask scheduler` and two `dask worker` by hand, as a user would start them."""
    folder = tmp_path_factory.mktemp("scheduler")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    made = [[*dask, "scheduler", *common, "--host", HERE, "--port", "0"]]
    worker = [*dask, "worker", *common, "--host", HERE, "--nthreads", "1"]
    made.append([*worker, "--nworkers", "2", "--local-directory", str(folder)])
    started = [subprocess.Popen(command, **quiet) for command in made]  # type: ignore[call-overload]
    yield file
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "in process":
        return in_process
    if request.param == "local cluster":
        return request.getfixturevalue("local")  # type: ignore[no-any-return]
    return Cluster(file=str(request.getfixturevalue("scheduler")))


@pytest.fixture
def poisoned(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A run whose steps do to every process, this one's children too, what is said of them."""
    from ndt_offline.replay.block import BlockRunner

    specification = spec_from_file_location("poison", POISON / "sitecustomize.py")
    assert specification is not None and specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(BlockRunner, "_one", BlockRunner._one)
    module.poison(BlockRunner)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(POISON), *filter(None, sys.path)]))

    def poison(text: str) -> Path:
        (run_copy / "poison").write_text(text)
        return run_copy

    return poison


def test_fresh_grown_and_changed(
    recorded: Path, whole: Path, tmp_path: Path, executor: Executor
) -> None:
    store, run = tmp_path / "a.zarr", cut_to(recorded, tmp_path / "run", 190)
    other = Parameters(layers=("relu*", "*.weight"))
    assert rows_replayed(replay(run, store, other, executor=executor)) == 190
    cut_to(recorded, run, 300)
    assert rows_replayed(replay(run, store, other, executor=executor)) == 110
    assert rows_replayed(replay(run, store, executor=executor)) == 300
    assert_same(store, whole)


def test_a_damaged_checkpoint_is_listed(
    run_copy: Path, whole: Path, tmp_path: Path, executor: Executor
) -> None:
    store, path = tmp_path / "a.zarr", checkpoint_path(run_copy, 700)
    path.write_bytes(path.read_bytes()[:-9])
    replay(run_copy, store, executor=executor)
    lost = outcomes(store)
    assert 700 in lost and all(code == OUTCOME["damaged"] for code, _ in lost.values())
    assert path.name in lost[700][1]
    assert_same_but(store, whole, lost)


REASONS = {"segv": "SIGSEGV", "kill": "SIGKILL", "hang": "no end", "bomb": "MemoryError"}
POISONS = {
    "in process": {325: "segv", 1000: "hang", 1400: "bomb"},
    "local cluster": {325: "kill", 330: "segv"},
    "scheduler": {325: "segv", 1400: "bomb"},
}


def test_poisoned_checkpoints_are_given_up_and_the_rest_is_right(
    poisoned: Callable[[str], Path],
    whole: Path,
    tmp_path: Path,
    executor: Executor,
    request: pytest.FixtureRequest,
) -> None:
    kinds = POISONS[request.node.callspec.params["executor"]]
    run = poisoned(" ".join(f"{step}:{kind}" for step, kind in kinds.items()))
    store = tmp_path / "a.zarr"
    replay(run, store, executor=executor, limits=Limits(seconds=8))
    lost = outcomes(store)
    assert lost.keys() == kinds.keys()
    for step, (code, why) in lost.items():
        assert code == OUTCOME["failed"]
        assert REASONS[kinds[step]] in why and checkpoint_path(run, step).name in why
    assert_same_but(store, whole, lost)
    plan = plan_of(run, store)
    again = {int(plan.steps[row]) for block in plan.blocks for row in block.todo}
    assert again == {step for step, kind in kinds.items() if kind != "segv"}, (
        "memory and time may suffice tomorrow; what crashes by itself is not tried again"
    )


def test_what_hangs_is_gone_before_its_block_is_run_again(
    poisoned: Callable[[str], Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or two processes would have it, and the memory of both."""
    run, plain, before = poisoned("700:hang"), replay_all.isolate, psutil.Process().children()

    def isolate(job: Job, block: Block) -> BlockReport:
        assert set(psutil.Process().children()) <= set(before)
        (run / "poison").unlink()
        return plain(job, block)

    monkeypatch.setattr(replay_all, "isolate", isolate)
    replay(run, tmp_path / "a.zarr", limits=Limits(seconds=8))
    assert_same(tmp_path / "a.zarr", whole)


def assert_same_but(store: Path, whole: Path, steps: Iterable[int]) -> None:
    """Two stores agree in every row but these."""
    one, other = arrays_of(store), arrays_of(whole)
    kept = ~np.isin(other["records/step"], list(steps))
    for name in other:
        rows = kept if len(other[name]) == len(kept) else slice(None)
        np.testing.assert_array_equal(one[name][rows], other[name][rows], err_msg=name)


def test_every_port_of_a_local_cluster_is_on_this_machine_only(local: Spread) -> None:
    workers = local.client.run(os.getpid).values()
    ports = [
        connection.laddr.ip
        for process in map(psutil.Process, [os.getpid(), *workers])
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(ports) >= 4 and set(ports) == {HERE}


def test_workers_have_one_thread_and_no_trimming(local: Spread) -> None:
    for environment in local.client.run(lambda: dict(os.environ)).values():
        assert environment["OMP_NUM_THREADS"] == "1"
        assert "MALLOC_TRIM_THRESHOLD_" not in environment
    assert set(local.client.nthreads().values()) == {1}


def test_a_cluster_is_described_by_a_dictionary() -> None:
    options = local_options(3, "/scratch")
    assert (options["n_workers"], options["threads_per_worker"]) == (3, 1)
    assert options["host"] == HERE and options["dashboard_address"] == f"{HERE}:0"
    made = gpu_options(["0", "GPU-7"], "/scratch")
    devices = [w["options"]["env"]["CUDA_VISIBLE_DEVICES"] for w in made["workers"].values()]
    assert devices == ["0", "GPU-7"]
    assert made["scheduler"]["options"]["host"] == HERE


def test_schedulers_that_are_not_there_are_told_of_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        pytest.raises(NdtError, match="no scheduler file after 1 s"),
        remote_client(None, tmp_path / "none.json", patience=1),
    ):
        pass
    with (
        pytest.raises(NdtError, match="no scheduler answers within 2 s"),
        remote_client("tcp://127.0.0.1:9", patience=2),
    ):
        pass
    assert time.monotonic() - started < 50  # PATIENCE is 60


@pytest.mark.parametrize("address", ["", "nonsense", "http://x:1", "tcp://host", "tcp://:8786"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        check_address(address)


def test_open_schedulers_are_named() -> None:
    assert is_open("tcp://10.0.0.1:8786") and is_open("10.0.0.1:8786")
    assert not is_open("tls://10.0.0.1:8786") and not is_open("tcp://127.0.0.1:1")


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_a_large_parent_does_not_make_its_children_large(run_copy: Path, tmp_path: Path) -> None:
    large = np.ones(2**27)
    reports = replay(run_copy, tmp_path / "a.zarr")
    assert 0 < max(report.peak for report in reports) < large.nbytes


def test_a_short_analysis_starts_no_cluster(
    recorded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndt_offline.execute import ahead

    def cluster(*args: object, **options: object) -> None:
        pytest.fail("a cluster was started for a second of work")

    monkeypatch.setattr(replay_all, "WORTH", 60.0)  # however busy this machine is
    monkeypatch.setattr(ahead, "local_client", cluster)
    replay(recorded, tmp_path / "a.zarr", executor=Automatic(workers=4))
    assert_same(tmp_path / "a.zarr", whole)


def test_a_long_analysis_starts_one(
    recorded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    plain = replay_all._one_by_one

    def idle(
        job: Job, blocks: Sequence[Block], told: Callable[[int], None], cluster: object = None
    ) -> Reports:
        """Nothing more is done here than the first block."""
        if cluster is None:
            yield from plain(job, blocks, told)

    monkeypatch.setattr(replay_all, "WORTH", 0.0)
    monkeypatch.setattr(replay_all, "_one_by_one", idle)
    replay(recorded, tmp_path / "a.zarr", executor=Automatic(workers=2, say=said.append))
    assert_same(tmp_path / "a.zarr", whole)
    assert len(said) == 1 and "2 processes" in said[0] and HERE in said[0]


def test_blocks_go_on_while_a_cluster_starts(
    poisoned: Callable[[str], Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        """A cluster that is ready after two blocks, and does what this process would."""

        asked, ready = 0, False

        def __init__(self, *about: object) -> None:
            self.client = type("Client", (), {"dashboard_link": "nowhere"})()

        def start(self) -> None:
            Slow.asked += 1

        def close(self) -> None:
            Slow.ready = False

    left: list[int] = []

    class Spread:
        def __init__(self, client: object) -> None: ...

        def __call__(self, job: Job, blocks: Sequence[Block], told: object) -> Reports:
            left.extend(block.start for block in blocks)
            yield from in_process(job, blocks, lambda rows: None)

    monkeypatch.setattr(replay_all, "WORTH", 0.0)
    monkeypatch.setattr(replay_all, "Ahead", Slow)
    monkeypatch.setattr(replay_all, "Spread", Spread)
    monkeypatch.setattr(replay_all, "warm_up", lambda: None)
    seen = 0
    # The child would be done before anybody looks whether the cluster is there.
    run = poisoned(" ".join(f"{5 * row}:slow" for row in range(128, 160)))
    plan = plan_of(run, tmp_path / "a.zarr")
    job = make_job(prepare(open_run(run), Parameters()), tmp_path / "a.zarr")
    ready_store(job, plan)
    for report in Automatic(workers=2)(job, plan.blocks, lambda rows: None):
        seen += report.rows
        Slow.ready = Slow.ready or seen >= 128
    assert seen == 300 and Slow.asked == 1
    # What the child has finished is not done again.
    assert left and left[-1] == 256 and all(start >= 128 for start in left)
    assert_same(tmp_path / "a.zarr", whole)


def test_a_cluster_that_does_not_start_is_told(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndt_offline.execute import ahead

    def broken(*args: object, **options: object) -> None:
        raise NdtError("no port is free")

    monkeypatch.setattr(replay_all, "WORTH", 0.0)
    monkeypatch.setattr(replay_all, "warm_up", lambda: None)
    monkeypatch.setattr(ahead, "local_client", broken)
    with pytest.raises(NdtError, match="no port is free"):
        replay(recorded, tmp_path / "a.zarr", executor=Automatic(workers=2))
