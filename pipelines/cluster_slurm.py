"""Analyse a run on a Slurm cluster, with dask-jobqueue (pip install dask-jobqueue).

    python pipelines/cluster_slurm.py ckpts --jobs 20 --queue short --memory 4GB
    python pipelines/cluster_slurm.py ckpts --print-script        what each job would run

Run it on a node that may stay up and that jobs can reach; the run and its store must lie on a
file system that all nodes share. Killed or out of time, the same command goes on where it stopped.
"""

from __future__ import annotations

from typing import Any

import click

THREADS = [f"export {name}_NUM_THREADS=1" for name in ("OMP", "OPENBLAS", "MKL")]
STRICT = {
    "distributed.scheduler.allowed-failures": 3,
    # A cluster whose jobs wait in the queue is not dead.
    "distributed.scheduler.no-workers-timeout": "24 hours",
}


def make_cluster(queue: str | None, account: str | None, memory: str, walltime: str) -> Any:
    """A cluster without jobs yet; each job is one process with one thread."""
    import dask
    from dask_jobqueue import SLURMCluster

    dask.config.set(STRICT)
    return SLURMCluster(
        queue=queue,
        account=account,
        cores=1,
        processes=1,
        memory=memory,
        walltime=walltime,
        job_name="ndt-analyze",
        job_script_prologue=THREADS,
        # Workers leave by themselves before Slurm ends the job, and give back what they hold.
        worker_extra_args=["--lifetime", _before(walltime), "--lifetime-stagger", "1m"],
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )


def _before(walltime: str) -> str:
    """Two minutes less than a walltime of the form HH:MM:SS."""
    hours, minutes, seconds = (int(part) for part in walltime.split(":"))
    return f"{max(60, 3600 * hours + 60 * minutes + seconds - 120)}s"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path")
@click.option("--jobs", default=10, show_default=True, help="Jobs at most.")
@click.option("--queue", help="The partition.")
@click.option("--account", help="Who pays.")
@click.option("--memory", default="4GB", show_default=True, help="Per job; see --dry-run.")
@click.option("--walltime", default="01:00:00", show_default=True)
@click.option("--print-script", is_flag=True, help="Print the job script and stop.")
def main(
    path: str,
    jobs: int,
    queue: str | None,
    account: str | None,
    memory: str,
    walltime: str,
    print_script: bool,
) -> None:
    """Analyse PATH with jobs on Slurm."""
    with make_cluster(queue, account, memory, walltime) as cluster:
        if print_script:
            click.echo(cluster.job_script())
            return
        from distributed import Client

        from ndt_offline import analyze
        from ndt_offline.execute.spread import Spread

        cluster.adapt(minimum=1, maximum=jobs)
        with Client(cluster) as client:
            click.echo(f"waiting for the first job; dashboard: {client.dashboard_link}")
            client.wait_for_workers(1)
            # Without jobs for half an hour it gives up; the queue may be long.
            result = analyze(path, executor=Spread(client, grace=1800))
        click.echo(f"{result.replayed} checkpoints replayed; written: {result.store}")


if __name__ == "__main__":
    main()
