"""The command line: exit codes, one document on stdout, help with examples, quick answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from ndt_offline.cli import analyze as analyze_command
from ndt_offline.cli import main as main_command
from ndt_offline.run.reader import open_run

QUICK = ("--detector", "zscore", "--draws", "1")


@dataclass(frozen=True)
class Finished:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Finished]:
    """Runs a command as its script would, in this process: importing torch again takes seconds."""

    def call(program: str, *args: str | Path) -> Finished:
        main = {"ndt-analyze": analyze_command.main, "ndt-offline": main_command.main}[program]
        monkeypatch.setattr(sys, "argv", [program, *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Finished(int(stopped.value.code or 0), *capsys.readouterr())

    return call


Run = Callable[..., Finished]


def test_table_and_json_say_the_same(run: Run, run_path: Path) -> None:
    table = run("ndt-analyze", run_path, *QUICK)
    assert table.returncode == 0, table.stderr
    assert "81 checkpoints, steps 0 to 400" in " ".join(table.stdout.split())
    assert max(map(len, table.stdout.splitlines())) <= 100
    assert "\x1b" not in table.stdout
    document = json.loads(run("ndt-analyze", run_path, *QUICK, "--json").stdout)
    assert document["checkpoints"] == 81 and document["steps"] == [0, 400]
    assert {(r["space"], r["layer"]) for r in document["series"]} == {
        ("activations", "0"),
        ("activations", "2"),
        ("weights", "0.weight"),
        ("weights", "2.weight"),
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("/nowhere/at/all",), "no such directory"),
        (("{run}", "--metrics", "rank"), "not known"),
        (("{run}", "--detector", "psychic"), "psychic"),
        (("{run}", "--layers", "nothing*"), "nothing*"),
        (("{run}", "--show", "rank"), "rank"),
        (("{run}", "--as", "tokens"), "GLOB=RULE"),
        (("{run}", "--model", "os:getcwd"), "os:getcwd"),
        (("{run}", "--probe", "/nowhere.safetensors"), "/nowhere.safetensors"),
        (("{run}", "--show", "stable_rnk"), "try: stable_rank (known"),
        (("{run}", "--metrics", "efective_rank"), "try: effective_rank (known"),
        (("{run}", "--fail-on", "stable_rnk(0) < 1"), "try: stable_rank (known"),
        (("{run}", "--fail-on", "stable_rank(0.wieght) < 1"), "try: 0.weight (known"),
        (("{run}", "--target", "los"), "try: loss (known"),
        ((), "PATH"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(
    run: Run, run_path: Path, args: tuple[str, ...], words: str
) -> None:
    filled = [a.format(run=run_path) for a in args]
    result = run("ndt-analyze", *filled, *(QUICK if "--detector" not in filled else ()))
    assert result.returncode == 2, result.stderr
    assert words in result.stderr and "Traceback" not in result.stderr


def test_a_mistyped_command_or_table_names_the_nearest(run: Run, run_path: Path) -> None:
    told = run("ndt-offline", "exprot", run_path)
    assert told.returncode == 2 and "export (known: baseline, compare" in told.stderr
    assert run("ndt-analyze", run_path, *QUICK, "--no-report").returncode == 0
    told = run("ndt-offline", "export", run_path, "--table", "phase", "--out", run_path / "out")
    assert told.returncode == 2 and "try: phases (known" in told.stderr
    told = run("ndt-offline", "figures", run_path, "--metric", "stable_rnk")
    assert told.returncode == 2 and "try: stable_rank (known" in told.stderr


def test_a_damaged_checkpoint_gives_exit_code_3(run: Run, run_path: Path) -> None:
    broken = Path(open_run(run_path).entry(100).path)  # a raw one on a busy machine
    broken.write_bytes(broken.read_bytes()[:50])
    result = run("ndt-analyze", run_path, *QUICK)
    assert result.returncode == 3
    assert broken.name in result.stdout.replace("\n", "")
    assert run("ndt-offline", "verify", run_path).returncode == 3


def test_verify_and_inspect_a_good_run(run: Run, run_path: Path) -> None:
    assert run("ndt-offline", "verify", run_path).returncode == 0
    told = run("ndt-offline", "inspect", run_path)
    assert told.returncode == 0 and "0.weight" in told.stdout and "81 checkpoints" in told.stdout


def commands() -> list[tuple[str, click.Command]]:
    group = main_command.command
    context = click.Context(group)
    found = [
        ("ndt-offline " + n, group.get_command(context, n)) for n in group.list_commands(context)
    ]
    return [("ndt-analyze", analyze_command.command), *((n, c) for n, c in found if c)]


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_help_has_an_example(name: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=name))
    assert "Example" in text and f"  {name} " in text


def test_help_is_light_and_quick() -> None:
    code = (
        "import sys\n"
        "from ndt_offline.cli.analyze import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'dask', 'distributed', 'zarr', 'scipy', 'matplotlib', 'numpy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    out = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert "Exit codes" in out.stdout and out.stderr.strip() == "[]"


def test_options_come_from_the_environment_too(
    run: Run, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run_path.parent / "elsewhere.zarr"
    monkeypatch.setenv("NDT_OUT", str(out))
    result = run("ndt-analyze", run_path, *QUICK)
    assert result.returncode == 0 and out.is_dir()
