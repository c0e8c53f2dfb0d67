"""Two analyses of one store: the second is refused at once; a dead one blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from execute_runs import replay

from ndt_offline.errors import UsageError
from ndt_offline.execute.lock import locked

HOLD = "import sys, time; from pathlib import Path; from ndt_offline.execute.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def holder(store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_analysis_is_refused_at_once(recorded: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    with holder(store) as process:
        started = time.monotonic()
        with pytest.raises(UsageError, match=f"process {process.pid}") as caught:
            replay(recorded, store)
        assert time.monotonic() - started < 30  # and not the 60 s that it is held
        assert caught.value.path == store and not store.exists()
        process.kill()


def test_a_killed_analysis_leaves_no_lock(recorded: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    with holder(store) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert replay(recorded, store)


def test_one_process_cannot_hold_it_twice_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    with locked(store):
        with pytest.raises(UsageError, match="another analysis"), locked(store):
            pass
        assert (tmp_path / "a.zarr.lock").exists(), "the refused one took the lock away"
    assert list(tmp_path.iterdir()) == []
    with locked(store):
        pass
