"""Runs that somebody tampered with: nothing outside is deleted, nothing ends in a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_packing import LAYOUT, contents, record, run_cli

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.graph import load_graph
from ndt_offline.record.attempts import history
from ndt_offline.run import checkpoint, codec, container, deferred, journal, packing
from ndt_offline.run.attempt import read_attempt
from ndt_offline.run.identity import crc32c, hex8
from ndt_offline.run.layout import Layout
from ndt_offline.run.maintain import alone, verify
from ndt_offline.run.probe import load_probe
from ndt_offline.run.pruning import find_hidden, prune
from ndt_offline.run.reader import Decoder, open_run


def say(attempt: Path, **words: object) -> None:
    journal.append(attempt / "journal.jsonl", words)


def name(step: int) -> str:
    return f"checkpoints/step_{step:012d}.safetensors"


@pytest.mark.parametrize("place", ["folder", "file", "name", "step"])
def test_packing_deletes_only_files_of_its_own(tmp_path: Path, place: str) -> None:
    attempt = record(tmp_path / "run", range(4))
    list(packing.pack_attempt(attempt))
    outside = tmp_path / "precious"
    outside.mkdir()
    folder = attempt / "checkpoints"
    if place == "folder":  # raw/ leads out of the run
        (attempt / "raw").rmdir()
        (attempt / "raw").symlink_to(outside)
        precious = outside / "step_000000000002.safetensors"
        file = "raw/step_000000000002.safetensors"
    elif place == "file":
        precious = folder / "step_000000000002.safetensors"
        precious.symlink_to(outside)
        file = name(2)
    else:  # a name that recording does not give; a file of another step
        file = "checkpoints/notes.txt" if place == "name" else name(77)
        precious = attempt / file
    if place != "file":
        precious.write_bytes(b"mine")
    told = {"size": 4, "file_crc": "00000000", "content": "00000000"}
    last = json.loads((attempt / "journal.jsonl").read_bytes().splitlines()[-2])
    say(attempt, kind="checkpoint", step=2, file=file, **told)
    for line in journal.read(attempt / "journal.jsonl").records:
        if line.get("kind") == "packed" and line["step"] == 2:
            last = line
    say(attempt, **last)
    deferred.sweep(read_attempt(attempt))
    assert os.path.lexists(precious)


def test_an_original_stays_where_its_packed_file_is_not_readable(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(2))
    line = next(r for r in journal.read(attempt / "journal.jsonl").records if r.get("step") == 1)
    gone = "checkpoints/segment_000000000000_000000000001.safetensors"
    say(attempt, **{**line, "kind": "packed", "file": gone, "offset": 0})
    deferred.sweep(read_attempt(attempt))
    assert (attempt / name(1)).exists()


def test_pruning_follows_no_link(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    attempt = record(run, range(4))
    (attempt / "checkpoints").rename(outside)
    (attempt / "checkpoints").symlink_to(outside)
    record(run, range(2, 4))
    opened = open_run(run)
    hidden = find_hidden(opened)
    assert len(hidden.entries) == 2 and hidden.files == ()
    prune(opened, hidden)
    assert len(list(outside.iterdir())) == 4


@pytest.mark.parametrize("stray", ["0001.bak", "1\u00b2", "\u0661", "1", "0" * 200])
def test_stray_folders_are_not_attempts(tmp_path: Path, stray: str) -> None:
    run = tmp_path / "run"
    record(run, range(2))
    before = contents(run)
    (run / "attempts" / stray).mkdir()
    assert contents(run) == before and len(open_run(run).attempts) == 1
    with alone(run):
        pass
    assert history(run, 2) == []
    record(run, range(2, 4))
    assert [attempt.number for attempt in open_run(run).attempts] == [1, 2]


def add_line(attempt: Path, body: str) -> None:
    """A line as hostile as it may be, with the checksum that makes it whole."""
    raw = body[:-1].encode()
    with (attempt / "journal.jsonl").open("ab") as file:
        file.write(raw + f',"crc":"{hex8(crc32c(raw))}"}}\n'.encode())


def line_of(step: str) -> str:
    words = '"file":"checkpoints/a","size":1,"file_crc":"0","content":"0"'
    return f'{{"kind":"checkpoint","step":{step},{words}}}'


@pytest.mark.parametrize(
    "body",
    [
        line_of("1e999"),
        line_of("10.9"),
        line_of('"10"'),
        line_of("true"),
        line_of("-1"),
        '{"kind":"pruned","step":[1]}',
        '{"kind":"pruned","step":{}}',
        '{"kind":["pruned"],"step":[1]}',
        '{"kind":"checkpoint","step":7,"file":"checkpoints/a","size":1e999}',
        '{"kind":"checkpoint","step":7,"file":"a\\u0000b","size":1,"file_crc":"","content":""}',
        '{"kind":"checkpoint","step":7,"file":"\\ud800","size":1,"file_crc":"","content":""}',
        '{"kind":"checkpoint","step":7,"file":"a","size":1,"scalars":[1]}',
    ],
)
def test_an_odd_line_is_listed_and_left_out(tmp_path: Path, body: str) -> None:
    attempt = record(tmp_path / "run", range(3))
    add_line(attempt, body)
    opened = open_run(tmp_path / "run")
    assert opened.steps == [0, 1, 2] and len(opened.journal) == 3
    assert len(opened.problems) == 1 and "odd" in opened.problems[0].what
    assert list(verify(opened)) == []
    list(packing.pack_attempt(attempt))
    record(tmp_path / "run", range(3, 5))
    assert open_run(tmp_path / "run").steps == [0, 1, 2, 3, 4]


def test_a_number_beyond_every_float_is_unknown(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(1))
    add_line(attempt, f'{{"kind":"dropped","step":1,"loss":1{"0" * 400}}}')
    loss = open_run(tmp_path / "run").scalar("loss")
    assert loss[0] == 0.0 and loss[1] != loss[1]


@pytest.mark.parametrize("start", ["1e999", '"3"', "-1", "null", "[1]"])
def test_an_odd_start_is_taken_from_the_journal(tmp_path: Path, start: str) -> None:
    attempt = record(tmp_path / "run", range(2, 4))
    (attempt / "attempt.json").write_text(f'{{"start_step": {start}}}')
    opened = open_run(tmp_path / "run")
    assert opened.attempts[0].start_step == 2 and len(opened.problems) == 1


def tampered(attempt: Path, step: int, **metadata: str) -> None:
    """A checkpoint rewritten with other metadata, all its checksums made to fit."""
    path = attempt / name(step)
    parsed = container.parse(path.read_bytes())
    table = [(n, d, s) for n, (d, s, _) in parsed.tensors.items()]
    head = container.header(table, {**parsed.metadata, **metadata})
    data = head + b"".join(bytes(part) for _, _, part in parsed.tensors.values())
    path.write_bytes(data)
    lines = journal.read(attempt / "journal.jsonl").records
    line = next(r for r in lines if r.get("step") == step)
    say(attempt, **{**line, "size": len(data), "file_crc": hex8(crc32c(data))})


@pytest.mark.parametrize(
    "references",
    ["[2,2]", "[2,1,0]", "[1e999]", "[2.0,1]", '["2"]', "{}", "null", "[true]", "[" * 100_000],
)
def test_references_are_two_different_steps(tmp_path: Path, references: str) -> None:
    attempt = record(tmp_path / "run", range(4))
    tampered(attempt, 3, references=references)
    with pytest.raises(DamagedError, match="reference checkpoints"):
        open_run(tmp_path / "run").checkpoint(3)


@pytest.mark.parametrize("key", ["codec", "grid"])
@pytest.mark.parametrize("text", ["[" * 100_000, "1e999", "null", '{"float32":[1e999]}'])
def test_metadata_that_is_none(tmp_path: Path, key: str, text: str) -> None:
    attempt = record(tmp_path / "run", range(2))
    tampered(attempt, 1, **{key: text})
    with pytest.raises(NdtError):
        open_run(tmp_path / "run").checkpoint(1)


def test_branching_references_end(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(60))
    for step in range(5, 60):
        tampered(attempt, step, references=json.dumps([step - 1, step - 5]))
    opened = open_run(tmp_path / "run")
    decoder = Decoder(opened.path, opened.entries)
    calls = []

    def endless(entry, layout_of, base):  # decodes whatever it builds on, and is never wrong
        calls.append(entry.step)
        for step in (entry.step - 1, entry.step - 5):
            if step >= 0:
                base(step)
        return checkpoint.Decoded(LAYOUT, {}, "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "read", endless)
        with pytest.raises(DamagedError, match="builds on"):
            decoder.read(opened.entry(59))
    assert len(calls) < 200


def safetensors(header: str, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + data


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}',
        '{"dtype":{},"shape":[1],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[0,1e999]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[0.0,4]}',
        '{"dtype":"F32","shape":[1],"data_offsets":["0","4"]}',
        '{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}',
        '"data_offsets"',
        "[0, 4]",
    ],
)
def test_a_hostile_header_is_refused(entry: str) -> None:
    with pytest.raises(RefusedError):
        container.parse(safetensors(f'{{"w":{entry}}}', bytes(4)))


@pytest.mark.parametrize("side", ["Infinity", "1e999", "NaN", "1" + "0" * 30])
def test_a_table_with_a_side_that_is_none_is_refused(side: str) -> None:
    with pytest.raises(RefusedError):
        Layout.from_json(f'{{"tensors":[["w","float32",[{side}]]],"aliases":{{}}}}')


@pytest.mark.parametrize("chain", ["zstd", "pco"])
def test_a_table_beyond_the_memory_is_damage(chain: str) -> None:
    layout = Layout.of({"w": ("float32", (2**43,))}, {})
    meta = {"codec": json.dumps({"float32": [chain]})}
    head = container.header([("float32", "uint8", (3,))], meta)
    with pytest.raises(NdtError):
        codec.decode_vectors(container.parse(head + b"abc"), layout, [])


def test_a_probe_with_a_strange_digit_or_shape(tmp_path: Path) -> None:
    path = tmp_path / "probe.safetensors"
    path.write_bytes(container.header([("x.\u00b2", "float32", (1,))], {}) + bytes(4))
    probe = load_probe(path)
    assert probe is not None and isinstance(probe.inputs, dict)
    path.write_bytes(container.header([("x", "float32", (0, 2**46, 2**46))], {}))
    with pytest.raises(RefusedError, match="plausible"):
        load_probe(path)


@pytest.mark.parametrize("row", ['{"step":1e999}', '{"step":1,"loss":1%s}', "3"])
def test_a_hostile_log_of_others(tmp_path: Path, row: str) -> None:
    (tmp_path / "m_1.safetensors").write_bytes(container.header([("w", "uint8", (1,))], {}) + b"x")
    row = row.replace("%s", "0" * 400)
    (tmp_path / "trainer_state.json").write_text(f'{{"log_history":[{row}]}}')
    assert open_run(tmp_path).steps == [1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("what", ["checkpoint", "journal", "layout", "about", "probe", "graph"])
def test_a_pipe_is_never_waited_for(tmp_path: Path, what: str) -> None:
    run = tmp_path / "run"
    attempt = record(run, range(2))
    record(run, range(2, 4))
    path = {
        "checkpoint": attempt / name(1),
        "journal": attempt / "journal.jsonl",
        "layout": run / "layouts" / f"{LAYOUT.key}.json",
        "about": attempt / "attempt.json",
        "probe": run / "probe.safetensors",
        "graph": run / "graph.json",
    }[what]
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    opened = open_run(run)
    told = [*opened.problems, *verify(opened)]
    if what == "probe":
        with pytest.raises(DamagedError, match="not a regular file"):
            load_probe(path)
    elif what == "graph":
        with pytest.raises(DamagedError, match="not a regular file"):
            load_graph(run)
    else:
        assert told and all("regular" in problem.what for problem in told)


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(2))
    with (attempt / name(1)).open("r+b") as file:
        file.truncate(2**42)  # sparse: more than any memory
    with pytest.raises(DamagedError, match="recorded were"):
        open_run(tmp_path / "run").checkpoint(1)


def test_verify_names_the_cause_once(tmp_path: Path) -> None:
    attempt = record(tmp_path / "run", range(21))
    (attempt / name(4)).unlink()
    code, said = run_cli("verify", str(tmp_path / "run"))
    assert code == 3 and said.count("missing") == 1
    assert "step 4: the file is missing; 16 later ones build on it" in said


@pytest.mark.parametrize("command", ["verify", "inspect", "pack"])
def test_names_reach_no_terminal_as_they_are(tmp_path: Path, command: str) -> None:
    run = tmp_path / "run\x1b[31m"
    attempt = record(run, range(2))
    add_line(attempt, '{"kind":"dropped","step":2,"scalars":{"a\\u001b]0;b":1}}')
    tampered(attempt, 1, references="[[")
    _, said = run_cli(command, str(run), *(["--no-trial"] if command == "inspect" else []))
    assert "\x1b" not in said and "\\u001b" in said
