"""One Dask worker per GPU of this machine, with dask-cuda (pip install dask-cuda).

    python pipelines/cluster_gpus.py --scheduler-file gpus.json       leave it running
    ndt-analyze ckpts --scheduler-file gpus.json

Each worker sees one GPU only and has one thread. Without dask-cuda the same comes from
`ndt_offline.execute.cluster.gpu_options`. This version replays on processors; the recipe is for
workers that are placed beside GPUs, and for what uses them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

HERE = "127.0.0.1"


def cluster_options(gpus: str | None, scratch: str | None) -> dict[str, Any]:
    """Keywords of `dask_cuda.LocalCUDACluster`."""
    return {
        "CUDA_VISIBLE_DEVICES": gpus,
        "threads_per_worker": 1,
        "host": HERE,
        "dashboard_address": f"{HERE}:0",
        "local_directory": scratch,
        # Results go to the store, not through device memory: nothing to spill.
        "device_memory_limit": 0,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--gpus", help="Indices or UUIDs, as CUDA_VISIBLE_DEVICES takes them (default: all).")
@click.option("--scratch", type=click.Path(), help="Where workers may write.")
@click.option("--scheduler-file", required=True, type=click.Path(path_type=Path))
def main(gpus: str | None, scratch: str | None, scheduler_file: Path) -> None:
    """Start the cluster, write its scheduler file, and stay until Ctrl-C."""
    from dask_cuda import LocalCUDACluster

    options = {k: v for k, v in cluster_options(gpus, scratch).items() if v is not None}
    with LocalCUDACluster(**options) as cluster:
        about = {"type": "Scheduler", "address": cluster.scheduler_address}
        scheduler_file.write_text(json.dumps(about))
        click.echo(f"{len(cluster.workers)} workers; dashboard: {cluster.dashboard_link}")
        try:
            while True:
                time.sleep(60)
        except KeyboardInterrupt:
            scheduler_file.unlink()


if __name__ == "__main__":
    main()
