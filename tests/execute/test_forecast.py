"""The time that a dry run promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ndt_offline import analyze
from ndt_offline.execute import forecast
from ndt_offline.execute.forecast import Forecast, derive_seconds, draw_seconds, replay_seconds
from ndt_offline.execute.outlook import foresee
from ndt_offline.execute.question import Question
from ndt_offline.execute.replay_all import WORTH


def test_a_short_replay_stays_in_one_process_and_a_long_one_is_shared() -> None:
    assert replay_seconds(100, 0.01, 8, 2.0) == pytest.approx(1.0)
    assert replay_seconds(1600, 0.015, 1, 2.0) == pytest.approx(24.0)
    shared = replay_seconds(1600, 0.015, 2, 2.0)
    assert 12.0 < shared < 24.0  # one process works alone until the cluster is there
    assert shared == pytest.approx(3.0 + 21.0 / 2)
    assert replay_seconds(10**6, 0.015, 8, 2.0) == pytest.approx(15_000 / 8, rel=0.01)
    assert replay_seconds(1, WORTH - 0.01, 8, 2.0) == pytest.approx(WORTH - 0.01)


def test_what_is_derived_counts_series_points_and_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast, "_timed", lambda work: 0.08)
    question = Question(metrics=("stable_rank", "effective_rank"), phases=("stable_rank",))
    one = derive_seconds(3, 1000, question, 1) - forecast.WRITING
    assert one == pytest.approx(6 * (0.08 + 0.01) + 3 * 0.08)
    half = derive_seconds(3, 1000, question, 2) - forecast.WRITING
    assert half == pytest.approx(one / 2)
    longer = derive_seconds(3, 20_000, question, 1) - forecast.WRITING
    assert longer == pytest.approx(10 * one)
    assert derive_seconds(0, 1000, question, 1) == forecast.WRITING
    assert draw_seconds(100, question) > draw_seconds(3, question) > 0


def test_the_sum_and_its_parts_are_told(recorded: Path, tmp_path: Path) -> None:
    assert Forecast(2.0, 12.0, 4.0, 1.0).total == 19.0
    parts = "2 s to start, 12 s to replay, 5 s to derive and draw"
    assert str(Forecast(2.0, 12.0, 4.0, 1.0)) == parts
    seen = foresee(recorded, tmp_path / "a.zarr")
    text = "\n".join(seen.lines(1))
    assert seen.start > 0 and re.search(r"time: about [\d.]+ s with 1 process", text)
    assert seen.forecast(1).total > 300 * (seen.need.seconds or 0) + seen.start


SLOW_MEASURE = """
import time
from ndt_offline.measure.plugin import Measure, Quantity

def slow():
    return Measure(
        name="slow", space="weights", needs=frozenset({"weights"}),
        quantities=(Quantity("nothing"),),
        compute=lambda view: time.sleep(0.05) or {"nothing": 1.0},
        about="waits",
    )
"""


def test_measures_are_part_of_what_is_foreseen(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_measure_of_a_test.py").write_text(SLOW_MEASURE)
    asked = ["slow_measure_of_a_test:slow", "motion"]
    store = tmp_path / "a.zarr"
    seen = foresee(recorded, store, measures=asked)
    assert seen.need.seconds is not None and seen.need.seconds > 0.1
    assert seen.series["nothing"] == 2 and seen.series["update_norm"] == 2
    assert set(seen.measures) == set(asked) and not store.exists()
    analyze(recorded, out=store, draws=0, phase_draws=0, phases=(), report=False)
    added = foresee(recorded, store, measures=asked[:1])
    assert added.plan.todo and added.need.seconds is not None and added.need.seconds > 0.1


def test_series_of_measures_take_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_timed", lambda work: 0.08)
    question = Question(metrics=("stable_rank",), phases=())
    work = derive_seconds(2, 1000, question, 1, {"quantity": 40}) - forecast.WRITING
    assert work == pytest.approx(42 * (0.08 + 0.01))
    more = draw_seconds(2, question, {"quantity": 40}) - draw_seconds(2, question)
    assert more == pytest.approx(40 * forecast.EACH)
