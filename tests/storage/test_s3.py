"""Runs and stores on an S3 server: equal to the disk's value for value, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndt_offline import analyze
from ndt_offline.errors import NdtError
from ndt_offline.pipeline import Result
from tests.storage.conftest import SECRET

SLOW = os.environ.get("NDT_SLOW") == "1"
RUN = "s3://bucket/run"
QUICK: dict[str, Any] = {
    "detector": "zscore", "draws": 0, "phases": (), "phase_draws": 0, "metrics": ("stable_rank",),
}  # fmt: skip


def quick(path: Any, **more: Any) -> Result:
    return analyze(path, **{**QUICK, "report": False, **more})


def put(fs: Any, run: Path, to: str = "bucket/run") -> None:
    fs.put(f"{run}/", f"{to}/", recursive=True)


def same(one: Result, other: Result) -> None:
    a, b = one.results, other.results
    np.testing.assert_array_equal(a.steps, b.steps)
    for space in a.spaces:
        np.testing.assert_array_equal(a.spectra(space.name), b.spectra(space.name))
        for metric in QUICK["metrics"]:
            np.testing.assert_array_equal(
                a.metric(space.name, metric), b.metric(space.name, metric)
            )
    for name in ("loss", "grad_norm", "probe_loss"):
        np.testing.assert_array_equal(a.signal(name), b.signal(name))
    assert repr(one.table) == repr(other.table)


def test_a_run_and_its_store_in_a_bucket(bucket: Any, run_path: Path) -> None:
    put(bucket, run_path)
    far = quick(RUN, report=True)
    assert str(far.store) == f"{RUN}/analysis.zarr" and str(far.report) == f"{RUN}/report.html"
    assert far.exit_code == 0 and far.replayed == 81
    same(far, quick(run_path))
    page = bucket.cat_file("bucket/run/report.html").decode()
    assert RUN in page and SECRET not in page
    again = quick(RUN, threshold=6.0)
    assert again.replayed == 0
    # A lost object is missed, and only its block is replayed.
    bucket.rm_file("bucket/run/analysis.zarr/weights/singular_values/c/1/0/0")
    mended = quick(RUN)
    assert mended.replayed == 81 - 64
    same(mended, quick(run_path))
    # The run grows; what is there stays.
    other = run_path.parent / "other.zarr"
    assert quick(RUN, out=other).replayed == 81 and quick(run_path, out=other).replayed == 0


LATER = ["zarr.json", "weights/status/zarr.json", "weights/stable_rank/zarr.json"] if SLOW else []


def analysis() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.storage.analysis", RUN]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("until", ["records/spectra/c/0", *LATER])
def test_killed_and_gone_on(bucket: Any, run_path: Path, until: str) -> None:
    put(bucket, run_path)
    with analysis() as child:
        end = time.monotonic() + 120
        while not bucket.exists(f"bucket/run/analysis.zarr/{until}"):
            assert time.monotonic() < end and child.poll() is None
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGKILL)
    done = quick(RUN)
    assert done.exit_code == 0
    # Finished blocks are kept; how far it came after the moment that was waited for is chance.
    assert done.replayed in ((0, 17) if until.startswith("records") else (0, 17, 81))
    same(done, quick(run_path))


@pytest.mark.skipif(not SLOW, reason="ten kills take minutes; NDT_SLOW=1")
@pytest.mark.slow
def test_killed_again_and_again(bucket: Any, run_path: Path) -> None:
    put(bucket, run_path)
    rng = np.random.default_rng(0)
    for _ in range(10):
        with analysis() as child:
            end = time.monotonic() + rng.uniform(3, 12)
            while time.monotonic() < end and child.poll() is None:
                time.sleep(0.02)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    same(quick(RUN), quick(run_path))


def test_half_a_removed_store_is_no_obstacle(bucket: Any, run_path: Path) -> None:
    put(bucket, run_path)
    quick(RUN)
    bucket.rm_file("bucket/run/analysis.zarr/zarr.json")
    bucket.pipe_file("bucket/run/analysis.zarr/measures/motion/values/c/0", b"x")
    done = quick(RUN)
    assert done.replayed == 81
    same(done, quick(run_path))
    bucket.pipe_file("bucket/thing.zarr/of/others", b"x")
    with pytest.raises(NdtError, match="not a store"):
        quick(RUN, out="s3://bucket/thing.zarr")
    assert bucket.exists("bucket/thing.zarr/of/others")


def test_folders_of_others_in_a_bucket(bucket: Any, tmp_path: Path) -> None:
    from tests.run.test_foreign import sharded, write

    for step in (1, 2, 64):
        write(tmp_path / f"checkpoint-{step}/model.safetensors", step)
    sharded(tmp_path / "checkpoint-128", 128)
    put(bucket, tmp_path)
    far = quick(RUN)
    assert far.results.steps.tolist() == [1, 2, 64, 128] and far.exit_code == 0
    assert quick(RUN).replayed == 0
    write(tmp_path / "checkpoint-64/model.safetensors", 65)
    put(bucket, tmp_path)
    assert quick(RUN).replayed == 1


def tell(line: list[str], **environment: str) -> tuple[int, str]:
    code = f"import sys; sys.argv={line!r}; from ndt_offline.cli.{line[0]} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_faults_are_sentences_without_credentials(bucket: Any, run_path: Path) -> None:
    code, said = tell(["analyze", "s3://bucket/nothing"])
    assert code == 2 and "there is no such directory" in said
    nowhere = f"http://user:{SECRET}@127.0.0.1:9"
    code, said = tell(["analyze", RUN], AWS_ENDPOINT_URL=nowhere)
    assert code in (1, 2) and "Traceback" not in said and SECRET not in said
    code, said = tell(["analyze", f"s3://key:{SECRET}@bucket/run"])
    assert code == 2 and "credentials" in said and SECRET not in said
    code, said = tell(["main", "pack", RUN])
    assert code != 0 and "Traceback" not in said
    put(bucket, run_path)
    code, said = tell(["main", "inspect", RUN])
    assert code == 0 and f"{RUN}: 81 checkpoints" in said
    code, said = tell(["main", "pack", RUN])
    assert code == 2 and "needs a folder of this machine" in said
