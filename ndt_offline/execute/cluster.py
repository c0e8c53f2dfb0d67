"""Clusters: processes of this machine, or a Dask scheduler that is there already.

A local cluster is described by plain dictionaries (`local_options`, `CONFIG`), so that a test can
look at them without starting one. It listens on 127.0.0.1 only, its dashboard too.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ndt_offline.errors import NdtError, UsageError

HERE = "127.0.0.1"
PATIENCE = 60.0  # seconds for a scheduler, its file or its first worker to appear
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
AGAIN = "the same command goes on where it stopped; without --scheduler it runs on this machine"

# Set before a cluster or client is made. Dask's own values are for other work.
CONFIG: Mapping[str, Any] = {
    # The default adds MALLOC_TRIM_THRESHOLD_, which costs half of the time here again.
    "distributed.nanny.pre-spawn-environ": THREADS,
    # A cluster whose workers die often shrinks to nothing after 15 s otherwise.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.scheduler.no-workers-timeout": "2 minutes",
    "distributed.scheduler.allowed-failures": 3,
    # What idles in every process took 4.5 % of a core together; so it is 1.4.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.diagnostics.nvml": False,
    "distributed.comm.timeouts.connect": "30s",
    "distributed.worker.daemon": True,
}
# A new worker is a fork of a process that has torch loaded: milliseconds instead of seconds.
PRELOADED = ["ndt_offline.execute.task"]


def local_options(workers: int, folder: str, verbose: bool = False) -> dict[str, Any]:
    """Keywords of `distributed.LocalCluster`: one single-threaded process per core.

    With several threads one crash would take innocent tasks with it, and BLAS gains nothing.
    """
    return {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "host": HERE,
        "dashboard_address": f"{HERE}:0",
        "local_directory": folder,
        "silence_logs": logging.INFO if verbose else logging.CRITICAL,
    }


def gpu_options(gpus: Sequence[str], folder: str, verbose: bool = False) -> dict[str, Any]:
    """Keywords of `distributed.SpecCluster`: one process per GPU, which sees only its own.

    gpus: indices or UUIDs as CUDA_VISIBLE_DEVICES takes them.
    """
    common = {"nthreads": 1, "host": HERE, "local_directory": folder, "dashboard": False}
    workers = {
        gpu: {
            "cls": "distributed.Nanny",
            "options": common | {"env": {**THREADS, "CUDA_VISIBLE_DEVICES": gpu}},
        }
        for gpu in gpus
    }
    scheduler = {"host": HERE, "dashboard_address": f"{HERE}:0"}
    return {
        "workers": workers,
        "scheduler": {"cls": "distributed.Scheduler", "options": scheduler},
        "silence_logs": logging.INFO if verbose else logging.CRITICAL,
    }


def configure() -> None:
    """Tell Dask what we know better; what a user has set himself is kept."""
    import dask
    import distributed  # noqa: F401  (it sets its defaults when it is imported)

    mine = dask.config.collect()  # files and environment variables
    chosen = {
        key: value for key, value in CONFIG.items() if dask.config.get(key, None, mine) is None
    }
    if sys.platform == "linux":
        chosen["distributed.worker.multiprocessing-method"] = "forkserver"
    dask.config.set(chosen)
    if sys.platform == "linux":
        from distributed.utils import get_mp_context

        context = get_mp_context()
        context.set_forkserver_preload(["distributed", *PRELOADED])


@contextmanager
def local_client(workers: int, gpus: Sequence[str] = (), verbose: bool = False) -> Iterator[Any]:
    """A client of a fresh cluster on this machine, closed and cleaned up afterwards."""
    configure()
    quiet_logs(verbose)
    os.environ.update(THREADS)
    from distributed import Client, LocalCluster, SpecCluster

    with tempfile.TemporaryDirectory(prefix="ndt-", ignore_cleanup_errors=True) as folder:
        if gpus:
            cluster = SpecCluster(**gpu_options(gpus, folder, verbose))
        else:
            cluster = LocalCluster(**local_options(workers, folder, verbose))
        try:
            with Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            cluster.close(timeout=20)


@contextmanager
def remote_client(
    address: str | None,
    file: str | Path | None = None,
    patience: float = PATIENCE,
    verbose: bool = False,
) -> Iterator[Any]:
    """A client of a scheduler that is there already, by its address or its scheduler file.

    Raises NdtError where none answers within `patience` seconds. The cluster is left as it is.
    """
    configure()
    quiet_logs(verbose)
    from distributed import Client

    if file is not None:
        _wait_for_file(Path(file), patience)
    where: dict[str, Any] = {"scheduler_file": str(file)} if file else {"address": address}
    named = str(file or address)
    try:
        client: Any = Client(timeout=patience, set_as_default=False, **where)
    except (OSError, TimeoutError, ValueError) as error:
        what = f"no scheduler answers within {patience:.0f} s: {error or type(error).__name__}"
        raise NdtError(what, path=named, remedy="dask scheduler --host ADDRESS") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError:
            raise NdtError(
                f"the scheduler has no worker after {patience:.0f} s",
                path=named,
                remedy=f"dask worker {client.scheduler.address} --nthreads 1",
            ) from None
        yield client


def is_open(address: str) -> bool:
    """Whether whoever reaches this scheduler can run code there: no TLS, and not only here."""
    protocol, _, rest = address.rpartition("://")
    host = rest.rpartition(":")[0].strip("[]")
    return protocol in ("", "tcp", "ws") and host not in (HERE, "localhost", "::1")


def check_address(address: str) -> str:
    """The address as given; UsageError for one that Dask would wait for in vain."""
    protocol, mark, rest = address.partition("://")
    if not mark:
        protocol, rest = "tcp", address
    host, _, port = rest.rpartition(":")
    if protocol not in ("tcp", "tls", "ucx", "ws", "wss") or not host or not port.isdigit():
        raise UsageError(
            f"--scheduler {address!r} is not an address",
            remedy="--scheduler tcp://HOST:8786 or tls://HOST:8786",
        )
    return address


def quiet_logs(verbose: bool) -> None:
    """Workers that die and come back are our business, not the user's, unless he asks."""
    level = logging.INFO if verbose else logging.CRITICAL
    for name in ("distributed", "tornado.application", "bokeh"):
        logging.getLogger(name).setLevel(level)


def _wait_for_file(path: Path, patience: float) -> None:
    # `Client` itself waits for ever for a file that does not come.
    end = time.monotonic() + patience
    while not (path.is_file() and path.stat().st_size):
        if time.monotonic() > end:
            raise NdtError(
                f"there is no scheduler file after {patience:.0f} s",
                path=path,
                remedy=f"dask scheduler --scheduler-file {path}",
            )
        time.sleep(0.2)
