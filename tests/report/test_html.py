"""report.html: whole, alone, bounded, and harmless whatever the names in the run are."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ndt_offline.report.aggregate import chosen_rows, envelope
from ndt_offline.report.charts import strongest
from ndt_offline.report.html import page_of, write_report
from ndt_offline.report.marks import _thinned
from ndt_offline.report.svg import number, png_of, ticks

from .conftest import Made, make_store

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole_and_loads_nothing_from_elsewhere(made: Made) -> None:
    text = page_of(made)
    page = Page(text)
    assert page.open == []
    assert "://" not in text and not re.search(r"@import|url\(", text)
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for key in ("src", "href", "xlink:href", "action"):
            assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,"))
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == ["summary", "series", "spectra", "spaces", "couplings", "thresholds",
                        "lists", "left-out", "reproduce"]  # fmt: skip


def test_page_shows_what_was_planted(made: Made) -> None:
    text = page_of(made)
    page = Page(text)
    jumps = [attrs for tag, attrs in page.tags if attrs.get("class") == "jump"]
    assert len(jumps) == 2  # one, on a linear and on a logarithmic axis
    assert re.search(r"step 1000: (1\.0|0\.9[89])", page.text)
    assert "event at step 1000" in page.text
    assert "2.00 \u2192 3.0" in page.text or "\u2192 2.99" in page.text
    charts = [attrs for tag, attrs in page.tags if tag == "svg" and "data-frame" in attrs]
    assert len(charts) >= 8 and all(attrs["aria-label"] for attrs in charts)


def test_hostile_names_are_text_and_nothing_else(hostile: Made) -> None:
    text = page_of(hostile)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "<script>alert(1)</script>" in page.text  # shown, letter by letter
    assert "49" not in "".join(re.findall(r"\{\{.*?\}\}", page.text))
    assert "{{7*7}}" in page.text
    for mark in ("\u202e", "\x1b"):
        assert mark not in text


def test_report_is_replaced_whole(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(made, path)
    assert path.read_text().rstrip().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_what_charts_share_is_held_once_and_marks_have_a_legend(tmp_path: Path) -> None:
    made = make_store(tmp_path / "analysis.zarr", restarts=(900,))
    page = Page(page_of(made))
    marks = [attrs for tag, attrs in page.tags if attrs.get("class") == "mark restart"]
    assert len(marks) == 2  # behind all charts, on a linear and on a logarithmic axis
    names = {attrs["id"] for tag, attrs in page.tags if tag == "g"}
    assert names == {"behind-linear", "behind-log"}
    used = [attrs["href"] for tag, attrs in page.tags if tag == "use"]
    assert len(used) == 8 and set(used) == {f"#{name}" for name in names}
    assert "restart at step 900" in page.text and page.text.count("training loss, its own") == 1


def test_of_many_marks_some_are_drawn_and_the_legend_says_so() -> None:
    (epochs,) = _thinned({"epoch": list(range(0, 1000, 10)), "restart": []})
    assert epochs.steps == tuple(range(0, 1000, 30)) and "one in 3" in epochs.said
    (few,) = _thinned({"learning rate": [5, 9]})
    assert few.steps == (5, 9) and few.said == "learning rate changes"


def test_strongest_of_each_series_are_chosen() -> None:
    owner, strength = np.array([0, 0, 1, 0, 1]), np.array([3.0, 9.0, 1.0, 5.0, 2.0])
    assert strongest(owner, strength, 2).tolist() == [1, 2, 3, 4]
    assert strongest(owner, strength, 1).tolist() == [1, 4]
    assert strongest(np.zeros(5, int), strength, 3).tolist() == [0, 1, 3]
    assert strongest(owner[:0], strength[:0], 3).tolist() == []


def test_problems_notes_and_parameters_are_listed(made: Made) -> None:
    from ndt_offline.run.attempt import Problem

    bad = Problem("truncated <b>", "step_5.safetensors", 5, "ndt-offline verify ckpts")
    page = Page(page_of(Made(made.run, made.store, made.table, [bad], ["a note & more"])))
    assert "truncated <b>" in page.text and "ndt-offline verify ckpts" in page.text
    assert "a note & more" in page.text and '"threshold": 4.7' in page.text


def test_many_layers_stay_small(tmp_path: Path) -> None:
    layers = tuple(f"block.{i}.fc" for i in range(55))
    made = make_store(
        tmp_path / "analysis.zarr", rows=80, layers=layers, detector="zscore", draws=0,
        phases=("nothing",), metrics=("stable_rank", "effective_rank", "participation_ratio",
                                      "nuclear_norm_ratio"),
    )  # fmt: skip
    text = page_of(made)
    assert len(text) < 10e6
    assert "400 of 440 series are drawn" in Page(text).text


def test_envelope_keeps_every_extreme_and_gap() -> None:
    rng = np.random.default_rng(1)
    x, y = np.arange(10_000.0), rng.standard_normal(10_000)
    y[3_000:4_000] = np.nan
    y[7_777] = 50.0
    shape = envelope(x, y, 200)
    assert len(shape.x) == 200 and not shape.exact
    assert np.nanmax(shape.high) == 50.0 and np.nanmin(shape.low) == np.nanmin(y)
    assert np.isnan(shape.mean[60:80]).all()
    whole = envelope(x[:150], y[:150], 200)
    assert whole.exact and np.array_equal(whole.mean, y[:150])


def test_rows_read_for_a_heat_map_are_bounded() -> None:
    rows = chosen_rows(1601, 64, 10**6, 10**9, 400)
    assert rows[:5] == [0, 1, 2, 3, 4] and rows[-1] == 1600 and len(rows) <= 400
    assert rows == sorted(set(rows))
    rows = chosen_rows(200_000, 512, 16 * 2**20, 192 * 2**20, 400)
    assert len(rows) == 12 and all(row % 512 == 0 for row in rows)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 10.0, 5) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    for low, high in ((0.13, 0.98), (-3.0, 1e6), (103.97, 104.02), (256.5, 0.5)):
        found = ticks(low, high, 4)
        assert 3 <= len(found) <= 7
        assert all(min(low, high) <= t <= max(low, high) + 1e-9 for t in found)


def test_labels_of_ticks_differ_where_the_ticks_do() -> None:
    said = [number(v) for v in (0.0, 50_000.0, 100_000.0, 150_000.0, 200_000.0)]
    assert said == ["0", "50k", "100k", "150k", "200k"]
    assert [number(v) for v in (8000.0, 1.5e6, 1.5e-4, 2e12, -0.25)] == [
        "8000", "1.5M", "0.00015", "2e12", "-0.25"
    ]  # fmt: skip
    for low, high in ((0.0, 200_000.0), (99_000.0, 101_000.0), (0.00012, 0.00018), (1e6, 1.1e6)):
        labels = [number(t) for t in ticks(low, high, 5)]
        assert len(set(labels)) == len(labels)


def test_png_is_read_back_by_another_reader(tmp_path: Path) -> None:
    from matplotlib.image import imread

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    (tmp_path / "x.png").write_bytes(png_of(pixels))
    assert np.array_equal((imread(tmp_path / "x.png") * 255).round().astype(np.uint8), pixels)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no browser here")
def test_a_browser_opens_it_and_no_name_runs(hostile: Made, tmp_path: Path) -> None:
    text = page_of(hostile)
    # A page that a name took over could change its title; ours says how many charts it drew.
    probe = "<script>document.title=document.querySelectorAll('svg[data-frame]').length</script>"
    (tmp_path / "report.html").write_text(text.replace("</body>", probe + "</body>"))
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    drawn = re.search(r"<title>(\d+)</title>", done.stdout)
    assert drawn is not None and int(drawn[1]) == text.count('data-frame="')
    assert done.stdout.count("<script") == 2
