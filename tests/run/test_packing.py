"""Packing, pruning, verifying: fewer files, the same checkpoints, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from ndt_offline.cli.main import command as cli
from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.record import rawfile
from ndt_offline.record.attempts import keep_layout, open_attempt, open_run_folder
from ndt_offline.record.writer import Writer
from ndt_offline.run import durable, journal, packing
from ndt_offline.run.identity import content
from ndt_offline.run.layout import Layout
from ndt_offline.run.lock import Lock
from ndt_offline.run.maintain import verify
from ndt_offline.run.pruning import find_hidden, prune
from ndt_offline.run.reader import Decoder, open_run

LAYOUT = Layout.of({"w": ("float32", (120, 100)), "n": ("int64", ())}, {})
Truth = dict[int, str]


def vectors_at(step: int) -> dict[str, np.ndarray]:
    start, drift = np.random.default_rng(0).normal(size=(2, 12000))
    noise = np.random.default_rng(step).normal(size=12000)
    sizes = 10 ** np.random.default_rng(1).uniform(-3, 0, 12000)
    w = start + sizes * (1e-3 * step * drift + 1e-4 * noise)
    return {
        "float32": w.astype(np.float32).view(np.uint8),
        "int64": np.array([step], np.int64).view(np.uint8),
    }


def record(
    run: Path, steps: range, raw: tuple[int, ...] = (), precision: str | None = None
) -> Path:
    open_run_folder(run).drop()
    about = {"start_step": steps[0], "every": 1, "loss": "none", "precision": precision}
    attempt = open_attempt(run, about)
    keep_layout(run, LAYOUT)
    out = Writer(attempt, precision)
    for number, step in enumerate(steps):
        if step in raw:
            rawfile.write(attempt, step, LAYOUT, vectors_at(step), {"loss": float(step)})
            out.adopt_raw(lambda key: LAYOUT)
        else:
            out.write(number, step, LAYOUT, vectors_at(step), {"loss": float(step)})
    out.close({"trainer": "closed"})
    return attempt


def contents(run: Path) -> Truth:
    opened = open_run(run)
    decoder = Decoder(opened.path, opened.entries)
    found = {}
    for entry in opened.entries:
        decoded = decoder.read(entry)
        found[entry.step] = content(decoded.layout, decoded.vectors)
    return found


def files(run: Path) -> list[Path]:
    return sorted(run.glob("attempts/*/*/*.safetensors"))


def run_cli(*arguments: str, said: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, input=said, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), result.output


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("precision", [None, "q12"])
def test_packing_changes_files_and_nothing_else(tmp_path: Path, small: bool, precision) -> None:
    run = tmp_path / "run"
    record(run, range(100), raw=(0, 5, 6, 7, 31, 32, 33, 64, 99), precision=precision)
    before = contents(run)
    old = open_run(run)
    size = sum(path.stat().st_size for path in files(run))
    code, said = run_cli("pack", str(run), *(["--small"] if small else []))
    assert code == 0 and "100 checkpoints" in said
    new = open_run(run)
    assert contents(run) == before and list(verify(new)) == [] and new.problems == []
    assert [e.content for e in new.entries] == [e.content for e in old.entries]
    assert (new.scalar("loss") == old.scalar("loss")).all() and new.hidden == 0
    assert len(files(run)) <= 6 and not list(run.glob("attempts/*/raw/*"))
    assert sum(path.stat().st_size for path in files(run)) < size
    again = {path: path.stat().st_mtime_ns for path in files(run)}
    assert run_cli("pack", str(run), *(["--small"] if small else []))[0] == 0
    assert {path: path.stat().st_mtime_ns for path in files(run)} == again


def test_small_after_plain(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record(run, range(40))
    before = contents(run)
    run_cli("pack", str(run))
    plain = sum(path.stat().st_size for path in files(run))
    run_cli("pack", str(run), "--small")
    assert contents(run) == before and len(files(run)) == 2
    assert sum(path.stat().st_size for path in files(run)) < plain


def test_a_packed_file_is_a_safetensors_file_of_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record(run, range(5))
    first = next(iter(files(run))).read_bytes()
    run_cli("pack", str(run))
    (packed,) = files(run)
    parts = load_file(packed)
    assert len(parts) == 5 and bytes(parts["step_000000000000"]) == first


class Cut(Exception):
    """The power goes here."""


@pytest.mark.parametrize("place", ["write", "prove", "journal", "sweep"])
@pytest.mark.parametrize("count", [1, 2])
def test_interrupted_anywhere_nothing_is_lost(tmp_path, monkeypatch, place, count) -> None:
    run = tmp_path / "run"
    record(run, range(70), raw=(3, 40))
    before = contents(run)
    calls = [0]

    def cutting(real, limit):
        def act(*given, **named):
            calls[0] += 1
            if calls[0] >= limit:
                raise Cut
            return real(*given, **named)

        return act

    owner, name, limit = {
        "write": (durable, "write", count),
        "prove": (packing, "_prove", count),
        "journal": (journal, "append", 17 * count),  # in the middle of a segment's lines
        "sweep": (Path, "unlink", 20 * count),
    }[place]
    monkeypatch.setattr(owner, name, cutting(getattr(owner, name), limit))
    with pytest.raises(Cut):
        run_cli("pack", str(run))
    monkeypatch.undo()
    assert contents(run) == before and list(verify(open_run(run))) == []
    run_cli("pack", str(run))
    assert contents(run) == before and list(verify(open_run(run))) == []
    assert len(files(run)) <= 4


def test_a_damaged_checkpoint_stays_where_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record(run, range(64))
    before = contents(run)
    bad = run / "attempts/0001/checkpoints/step_000000000040.safetensors"
    data = bytearray(bad.read_bytes())
    data[-9] ^= 1
    bad.write_bytes(data)
    assert run_cli("verify", str(run))[0] == 3
    assert run_cli("pack", str(run))[0] == 3
    assert bad.exists()
    opened = open_run(run)
    decoder = Decoder(run, opened.entries)
    for entry in opened.entries[:40]:
        assert decoder.read(entry).content == before[entry.step]
    with pytest.raises(DamagedError):
        decoder.read(opened.entry(40))


def test_packing_beside_a_live_training_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(3))
    for path in (run / "trainer.lock", attempt / "writer.lock"):
        lock = Lock(path)
        assert lock.take()
        with pytest.raises(UsageError, match="training"):
            run_cli("pack", str(run))
        lock.drop()
    assert run_cli("pack", str(run))[0] == 0


@pytest.mark.parametrize("packed", [False, True])
def test_prune_frees_what_is_hidden_and_only_that(tmp_path: Path, packed: bool) -> None:
    run = tmp_path / "run"
    record(run, range(80))
    record(run, range(50, 60))
    if packed:
        run_cli("pack", str(run))
    before = contents(run)
    assert open_run(run).hidden == 30
    code, said = run_cli("prune", str(run), said="n\n")
    assert code == 0 and "nothing was deleted" in said
    assert open_run(run).hidden == 30
    code, said = run_cli("prune", str(run), "--yes")
    assert code == 0 and "30 hidden" in said
    opened = open_run(run)
    assert contents(run) == before and opened.hidden == 0 and list(verify(opened)) == []
    left = {json.loads(line)["step"] for line in _journal(run) if '"checkpoint"' in line}
    assert 79 in left  # its loss is kept
    assert run_cli("prune", str(run), "--yes")[1].startswith("nothing")


def test_a_prune_that_was_cut_off_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    record(run, range(80))
    record(run, range(50, 60))
    before, plain, left = contents(run), Path.unlink, [5]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("step_"):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        plain(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        prune(open_run(run), find_hidden(open_run(run)))
    monkeypatch.undo()
    assert run_cli("prune", str(run), "--yes")[0] == 0
    files = list((run / "attempts/0001/checkpoints").iterdir())
    assert contents(run) == before and len(files) == 50


def _journal(run: Path) -> list[str]:
    return (run / "attempts/0001/journal.jsonl").read_text().splitlines()
