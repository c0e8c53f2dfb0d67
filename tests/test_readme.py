"""README is true: commands it shows run, options of scripts and files that it names exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from ndt_offline.cli import analyze, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
STUDIES = (ROOT / "pipelines/README.md").read_text()


def commands() -> list[str]:
    """The command lines of the sh blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [
        line.split("  #")[0].split(" # ")[0].strip() for b in blocks for line in b.splitlines()
    ]
    return [line for line in lines if line.startswith("ndt-")]


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    program, *rest = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [program, *rest])
    with pytest.raises(SystemExit) as stopped:
        {"ndt-analyze": analyze.main, "ndt-offline": main.main}[program]()
    return int(stopped.value.code or 0)


def test_every_command_runs(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_path == tmp_path / "ckpts"
    assert len(commands()) > 10
    codes = {line: run(line, monkeypatch) for line in commands()}
    # The z-score rule does not pass the battery, and `validate` says so.
    assert {line for line, code in codes.items() if code != 0} == {
        line for line in codes if line.startswith("ndt-offline validate zscore")
    }
    assert (tmp_path / "ckpts/report.html").is_file() and list((tmp_path / "figures").iterdir())


def test_the_first_command_analyses_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = re.search(r"pip install -e \. && (ndt-analyze \S+)", README)
    assert shown
    monkeypatch.chdir(shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data").parent)
    assert run(f"{shown.group(1)} --draws 1", monkeypatch) == 0
    assert "401 checkpoints, steps 0 to 2000" in capsys.readouterr().out


def test_every_file_it_names_exists() -> None:
    named = re.findall(r"\b(?:pipelines|sample_data|tests)/[\w./]*\w", README + STUDIES)
    named += [f"pipelines/{n}" for n in re.findall(r"\]\((figures/[\w./]+)\)", STUDIES)]
    named += [f"pipelines/{n}" for n in re.findall(r"`(\w+\.(?:py|sh))`", STUDIES)]
    named += [f"ndt_offline/{n}" for n in re.findall(r"`((?:\w+/)+\w+\.py)`", README) if "/" in n]
    paths = {name.replace("ndt_offline/ndt_offline", "ndt_offline") for name in named}
    assert paths and not [name for name in paths if not (ROOT / name).exists()]


@pytest.mark.parametrize("line", re.findall(r"`python (pipelines/[^`]+)`", README + STUDIES))
def test_scripts_have_the_options_shown(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, *words = shlex.split(line)
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    command = importlib.import_module(Path(script).stem).main
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_links_inside_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README + STUDIES, flags=re.MULTILINE)
    }
    linked = re.findall(r"\.md#([\w-]+)\)", README + STUDIES)
    assert linked and set(linked) <= headings
