"""Where an analysis runs, as a user says it; progress, and the exit code of what was given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from execute_runs import arrays_of, checkpoint_path, replay
from test_executors import POISON, poisoned  # noqa: F401  (a fixture)

from ndt_offline.cli.analyze import command
from ndt_offline.cli.progress import Bar, pace_of
from ndt_offline.cli.where import Where
from ndt_offline.errors import NdtError, UsageError
from ndt_offline.execute.replay_all import Automatic, Cluster

QUICK = ["--detector", "zscore", "--draws", "1", "--metrics", "stable_rank", "--no-report"]
NOWHERE = dict.fromkeys(("workers", "scheduler", "scheduler_file"))
PLAIN = {**NOWHERE, "device": "cpu", "dry_run": False, "watch": False, "verbose": False}


def where(**options: object) -> Where:
    return Where.of({**PLAIN, **options})


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)


def test_a_dry_run_says_it_in_numbers_and_writes_nothing(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    said = run_command(recorded, "--out", store, "--dry-run", "--workers", 2).output
    assert "checkpoints: 300; done: 0; to replay: 300" in said
    assert "blocks: 5 of 64 checkpoints" in said
    assert "disk: at most 76.8 kB more" in said, "300 x (2 layers x 8 + 2 layers x 8) x 8 bytes"
    assert "ms per checkpoint, measured" in said and "with 2 processes" in said
    assert not store.exists() and not store.with_name("a.zarr.lock").exists()
    assert "to replay: 0" in run_command(recorded, "--out", whole, "--dry-run").output


def test_the_choice_of_an_executor() -> None:
    assert where(workers=3).executor(print) == Automatic(3, False, print)
    assert where(scheduler="tcp://h:1").executor(print) == Cluster("tcp://h:1", say=print)
    assert where(scheduler_file="f").executor(print) == Cluster(file="f", say=print)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "is not a device"),
        ({"scheduler": "tcp://h:1", "scheduler_file": "f"}, "two clusters"),
        ({"scheduler": "tcp://h:1", "workers": 2}, "for this machine"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        where(**options)


def test_the_environment_names_a_scheduler(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "nonsense")
    done = run_command(recorded, "--out", tmp_path / "a.zarr", *QUICK)
    assert isinstance(done.exception, NdtError) and "nonsense" in str(done.exception)


def test_poison_ends_in_exit_code_3_and_a_list(
    poisoned: Callable[[str], Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    run, store = poisoned("325:segv"), tmp_path / "a.zarr"
    code = "from ndt_offline.cli.analyze import main; main()"
    arguments = [str(run), "--out", str(store), "--json", *QUICK]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(POISON), *filter(None, sys.path)])
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["step"] == 325 and "SIGSEGV" in problem["what"]
    assert problem["path"] == str(checkpoint_path(run, 325))


def test_watching_a_finished_run_analyses_it_once(
    recorded: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    done = run_command(recorded, "--out", store, "--watch", "--json", *QUICK)
    assert done.exception is None and json.loads(done.output)["usable"] == 300
    assert replay(recorded, store) == []
    for name in ("activations/singular_values", "weights/singular_values", "signals/probe"):
        np.testing.assert_array_equal(arrays_of(store)[name], arrays_of(whole)[name])


def test_a_pace_is_a_rate_and_a_time() -> None:
    assert pace_of(0, 10, 1.0) == ""
    assert pace_of(50, 300, 5.0) == "10/s, 0:25 left"
    assert pace_of(1, 9000, 2.0) == "0.50/s, 4:59:58 left"


def test_lines_that_stay_reach_no_terminal_code(capfd: pytest.CaptureFixture[str]) -> None:
    with Bar(quiet=False) as bar:
        bar.told("replaying", 0, 10)
        bar.told("replaying", 5, 10)
        bar.say("dashboard: \x1b[31mhttp://x")
    out, err = capfd.readouterr()
    assert out == "" and err == "dashboard: \\u001b[31mhttp://x\n"


def test_every_option_is_explained() -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
