"""Tidy tables, the JSON document and the table on the screen say what was planted."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

from ndt_offline.report.columns import COLUMNS
from ndt_offline.report.document import TABLES, document_of
from ndt_offline.report.failures import Signature
from ndt_offline.report.table import event_sentences, judged_sentences, phases_cell, print_table
from ndt_offline.report.tidy import rows_of, tidy_table

from .conftest import HOSTILE, Made, make_store


def test_planted_step_is_in_every_table(made: Made) -> None:
    found = rows_of(tidy_table(made.results, "transitions"))
    assert [(r["space"], r["layer"], r["step"]) for r in found] == [("activations", "fc1", 1000)]
    assert abs(found[0]["size"] - 1.0) < 0.02
    events = rows_of(tidy_table(made.results, "events"))
    assert [e["step"] for e in events] == [1000]
    assert events[0]["members"] == "activations/fc1/stable_rank"
    counts = {(r["space"], r["layer"]): r["transitions"] for r in made.table}
    assert counts == {
        ("activations", "fc1"): 1, ("activations", "fc2"): 0,
        ("weights", "fc1.weight"): 0, ("weights", "fc2.weight"): 0,
    }  # fmt: skip


def test_series_are_the_stored_ones_row_by_row(made: Made) -> None:
    rows = tidy_table(made.results, "series")
    mine = (rows["space"] == "weights") & (rows["layer"] == "fc2.weight")
    s = made.results.spectra("weights")[:, 1]
    assert np.array_equal(rows["step"][mine], made.results.steps)
    np.testing.assert_allclose(rows["value"][mine], (s**2).sum(1) / s[:, 0] ** 2, rtol=1e-12)


def test_every_column_is_explained(made: Made) -> None:
    for name, columns in COLUMNS.items():
        unknown = set(tidy_table(made.results, name)) - set(columns)
        assert not unknown, (name, unknown)


def test_whatever_a_stage_may_store_is_explained() -> None:
    from ndt_offline.detect.transition import FIELDS
    from ndt_offline.execute.jumps import SWEEP
    from ndt_offline.execute.thinning import _COLUMNS
    from ndt_offline.relate.couplings import Coupling
    from ndt_offline.relate.phase import SCALARS, Phase

    stored = {
        "couplings": set(Coupling.__dataclass_fields__) - {"series"},
        "phases": set(Phase.__dataclass_fields__),
        "fits": set(SCALARS),
        "transitions": set(FIELDS) - {"series", "index"},
        "sweep": set(SWEEP),
        "rates": {*_COLUMNS, "remark"},
    }
    for table, columns in stored.items():
        assert columns <= set(COLUMNS[table]), (table, columns - set(COLUMNS[table]))
    assert all(said for columns in COLUMNS.values() for said in columns.values())


def test_document_is_strict_json_with_documented_keys(made: Made) -> None:
    sign = Signature("spike", "loss", 10, "it jumped")
    shown = dataclasses.replace(made, signs=[sign])
    document = json.loads(json.dumps(document_of(shown), allow_nan=False))
    assert document["signs"] == [
        {"name": "spike", "where": "loss", "step": 10, "words": "it jumped"}
    ]
    import ndt_offline.report.document as module

    for key in document:
        assert key in (module.__doc__ or ""), key
    assert document["format"] == 1
    assert document["steps"] == [0, 2000] and document["usable"] == 401
    assert set(TABLES) <= set(document)
    assert document["parameters"]["transitions"]["detector"] == "steps"
    row = document["series"][0]
    for key in ("space", "layer", "metric", "first", "last", "transitions", "expected", "phases"):
        assert key in row


def text_of(made: Made, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, highlight=False)
    print_table(console, made.results, made.table, "stable_rank")
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_screen_fits_and_names_are_harmless(made: Made, hostile: Made) -> None:
    text = text_of(made)
    assert max(map(len, text.splitlines())) <= 100
    assert "1 (0.0)" in text and "event at step 1000: 1 series" in text
    text = text_of(hostile)
    assert "\x1b" not in text and "\u202e" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert HOSTILE[:8] in text.replace("\n", "")


def test_a_single_trend_does_not_hide_a_start_that_went_elsewhere() -> None:
    row = {"first": 1.63, "last": 3.03, "lowest": 1.6, "highest": 4.21, "lowest_at": 5}
    row["highest_at"] = 255
    assert phases_cell("falls throughout", row) == "falls; highest 4.21 at 255"
    assert phases_cell("rises throughout", row | {"last": 4.0}) == "rises throughout"
    deep = row | {"highest": 3.1, "lowest": 0.2}
    assert phases_cell("rises throughout", deep) == "rises; lowest 0.20 at 5"
    assert phases_cell("falls to step 9, then stable", row) == "falls to 9, stable"
    assert phases_cell("stable throughout", deep) == "stable throughout"  # noise has extremes
    assert phases_cell("too short", row | {"first": None}) == "too short"


def test_phases_are_shortened() -> None:
    words = "falls to step 16, then rises to step 683, then stable"
    assert phases_cell(words) == "falls to 16, rises to 683, stable"
    assert phases_cell("rises throughout") == "rises throughout"
    assert phases_cell("no phases: too short") == "too short"
    assert phases_cell(None) == "\u2013"


def test_the_verdict_says_which_series_it_is_about() -> None:
    judged = {"series": 33, "of": 48, "observed": 9, "matched": [2.1, 0.0, 5.0]}
    count, left = judged_sentences(judged)
    assert "in the 33 of 48 series that can be judged: 9; by chance 2.1 (0 to 5): more" in count
    assert left.startswith("no verdict on 15 series")
    (only,) = judged_sentences(judged | {"series": 48, "observed": 5})
    assert "no more than noise" in only
    (none,) = judged_sentences(judged | {"series": 0, "observed": 0, "matched": [0.0, 0.0, 0.0]})
    assert none.startswith("no verdict on 48 series")


def test_the_smallest_p_that_the_draws_allow_is_said(tmp_path: Path) -> None:
    told = list(event_sentences(make_store(tmp_path / "ten.zarr").results, 10, ""))
    assert told[0].startswith("event at step 1000: 1 series, p 0.091")
    assert "p 0.091 is the smallest that 10 draws" in told[1]
    told = list(event_sentences(make_store(tmp_path / "two.zarr", draws=2).results, 2, ""))
    assert told == ["events: not tested with 2 draws of matched noise; --draws 10 would"]
