"""Recordings for which no memory can be shared, or none be had: what is said, nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from recorded_training import digest, make_model, updates, wait_for_writer

from ndt_offline import Recorder, open_run
from ndt_offline.cli.main import command
from ndt_offline.errors import UsageError
from ndt_offline.record.ring import Ring
from ndt_offline.run.maintain import verify

pytestmark = pytest.mark.filterwarnings("ignore:ndt-offline. no probe")


def trained(record: Recorder, model: object, count: int) -> dict[int, str]:
    states = {record.step: digest(model)}
    for loss in updates(model, count):
        record(loss=loss)
        states[record.step] = digest(model)
    return states


def test_where_files_are_limited_a_thread_writes(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; sys.path.append(sys.argv[1]);"
        "from recorded_training import *; resource.setrlimit(resource.RLIMIT_FSIZE,(20000,20000));"
        "model = make_model(8); record = Recorder(Path(sys.argv[2]), model, every=5)\n"
        "for loss in updates(model, 30): record(loss=loss)\n"
        "record.close()"
    )
    run = tmp_path / "run"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("the writer has trouble") == 1 and "ulimit -f" in done.stderr
    assert "7 checkpoints recorded, 0 raw" in done.stderr and "nan" not in done.stderr
    opened = open_run(run)
    assert opened.steps == list(range(0, 31, 5)) and list(verify(opened)) == []


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[int, str]]:
    """A run that no writer could be made for, and what it was given."""

    def none(*args: object) -> Ring:
        raise OSError(27, "File too large")

    model, run = make_model(), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Ring, "make", none)
        with pytest.warns(RuntimeWarning, match="File too large.*ndt-offline pack"):
            record = Recorder(run, model, every=1)
        states = trained(record, model, 6)
        record.close()
    summary = record.summary()
    assert (summary.recorded, summary.raw, summary.dropped, summary.failures) == (0, 7, 0, 1)
    assert 0.3 < summary.ratio < 1  # of small files: their heads count
    return run, states


def test_pack_takes_in_what_no_writer_has_journaled(left: tuple[Path, dict[int, str]]) -> None:
    run, states = left
    with pytest.raises(UsageError, match="try: ndt-offline pack"):
        open_run(run)
    done = CliRunner().invoke(command, ["pack", str(run)], standalone_mode=False)
    assert done.exception is None, done.output
    opened = open_run(run)
    assert {entry.step: entry.content for entry in opened.entries} == states
    assert list(verify(opened)) == [] and list(run.glob("attempts/0001/raw/*")) == []


def test_the_next_start_takes_in_what_no_writer_has_journaled(
    left: tuple[Path, dict[int, str]],
) -> None:
    run, states = left
    model = make_model()
    Recorder(run, model, start_step=7).close()
    wait_for_writer(run / "attempts" / "0002")
    opened = open_run(run)
    assert {e.step: e.content for e in opened.entries if e.attempt == 1} == states
    assert opened.attempts[0].closed and list(verify(opened)) == []
