"""The recipes for clusters: what they describe, and that the one that can run here runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"


def recipe(name: str) -> ModuleType:
    specification = spec_from_file_location(name, PIPELINES / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_job_script_for_slurm() -> None:
    pytest.importorskip("dask_jobqueue")
    with recipe("cluster_slurm").make_cluster("short", "physics", "4GB", "00:30:00") as cluster:
        script = cluster.job_script()
    for line in (
        "#SBATCH -J ndt-analyze",
        "#SBATCH -p short",
        "#SBATCH -A physics",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --mem=4G",
        "#SBATCH -t 00:30:00",
        "export OMP_NUM_THREADS=1",
    ):
        assert line in script.splitlines()
    started = script.splitlines()[-1]
    assert "distributed.cli.dask_worker tcp://" in started and "--nthreads 1" in started
    assert "--lifetime 1680s" in started and "--nanny" in started


def test_workers_for_gpus_are_one_each_with_one_thread() -> None:
    options = recipe("cluster_gpus").cluster_options("0,1", None)
    assert options["threads_per_worker"] == 1 and options["host"] == "127.0.0.1"
    assert options["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize("name", ["cluster_slurm", "cluster_gpus"])
def test_recipes_say_what_they_do(name: str) -> None:
    command = [sys.executable, str(PIPELINES / f"{name}.py"), "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Usage" in out


def test_the_recipe_by_hand_analyses_a_run(run_copy: Path, tmp_path: Path) -> None:
    environment = os.environ | {"NDT_OPTIONS": "--detector zscore --draws 1 --no-report --json"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = ["sh", str(PIPELINES / "cluster_by_hand.sh"), str(run_copy)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert '"usable": 300' in done.stdout
