"""The battery's figure and what `ndt-offline validate` prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ndt_offline.cli import validate as validate_command
from ndt_offline.detect.battery.examples import Example, battery_examples
from ndt_offline.detect.battery.nulls import NULLS
from ndt_offline.detect.battery.positives import POSITIVES
from ndt_offline.errors import UsageError
from ndt_offline.report.battery import FOUND, WRONG, battery_figure


def test_every_null_and_every_positive_has_one_panel() -> None:
    figure = battery_figure(battery_examples(1, "zscore", n=1200), "zscore")
    titles = [axes.get_title(loc="left") for axes in figure.get_axes() if axes.axison]
    assert titles == [*NULLS, *POSITIVES]


def test_marks_are_where_the_reports_are_and_red_where_nothing_was_planted() -> None:
    x = np.random.default_rng(0).normal(size=300)
    examples = [
        Example("null", "none", x, np.zeros(0, np.int64), np.array([40])),
        Example("steps", "two", x, np.array([100, 200]), np.array([104, 150])),
    ]
    figure = battery_figure(examples)
    none, two = (axes for axes in figure.get_axes() if axes.axison)

    def marks(axes: object) -> list[tuple[float, str]]:
        lines = axes.get_lines()  # type: ignore[attr-defined]
        return [(ln.get_xdata()[0], ln.get_color()) for ln in lines if ln.get_marker() == "^"]

    assert marks(none) == [(40, WRONG)]
    assert marks(two) == [(104, FOUND), (150, WRONG)]
    heads = [part.get_suptitle() for part in figure.subfigs]
    assert "1 false reports" in heads[0] and "1 of 2 found" in heads[1]


def test_validate_prints_a_row_per_kind_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "battery.svg"
    done = CliRunner().invoke(
        validate_command.command,
        ["zscore", "--seeds", "1", "--seed", "3", "--figure", str(path)],
        standalone_mode=False,
    )
    assert done.return_value == 1
    assert done.exception is None
    for name in POSITIVES:
        assert sum(line.startswith(name + "  ") for line in done.stdout.splitlines()) >= 1
    # Both tables, the words and the verdict: a page, not a scroll.
    assert len(done.stdout.splitlines()) <= 65
    assert "\u2026" not in done.stdout  # nothing is cut off at 80 columns
    assert "cannot be believed" in done.stdout
    assert "--seed 3 repeats it" in done.stdout
    assert "s left" in done.stderr
    assert path.read_text().count("20 steps") == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--figure", "battery.jpg"], "battery.jpg"),
        (["--figure", "/nowhere/at/all.svg"], "no such folder"),
        (["--relate", "--figure", "a.svg"], "--relate"),
        (["--seeds", "0"], "--seeds 0"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(args: list[str], said: str) -> None:
    done = CliRunner().invoke(validate_command.command, args, standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert said in f"{done.exception} {done.exception.remedy}"
