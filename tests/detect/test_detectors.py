"""segments, baseline and a user's own detector."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ndt_offline.detect import DETECTORS, detect, find_peaks, select
from ndt_offline.detect.segmentation import pelt, prewhiten
from ndt_offline.errors import UsageError


def blocks(seed: int, n: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) + np.repeat(rng.normal(size=n // length + 1) * 3, length)[:n]


@pytest.mark.parametrize(("n", "shortest", "penalty"), [(200, 5, 8.0), (150, 2, 3.0), (90, 1, 6.0)])
@pytest.mark.parametrize("seed", range(3))
def test_pelt_is_the_optimal_partition(n: int, shortest: int, penalty: float, seed: int) -> None:
    ruptures = pytest.importorskip("ruptures")
    x = blocks(seed, n, 20)
    oracle = ruptures.Pelt(model="l2", min_size=shortest, jump=1).fit(x).predict(pen=penalty)
    assert pelt(x, penalty, shortest) == oracle[:-1]


def test_pelt_against_every_partition() -> None:
    x = np.random.default_rng(1).normal(size=11) + np.repeat([0, 4, -2], [4, 4, 3])

    def total(borders: list[int]) -> float:
        parts = np.split(x, borders)
        if min(map(len, parts)) < 2:
            return np.inf
        return sum(float(((p - p.mean()) ** 2).sum()) for p in parts) + 1.5 * len(borders)

    every = [[i for i in range(1, 11) if code >> (i - 1) & 1] for code in range(2**10)]
    assert pelt(x, 1.5, 2) == min(every, key=total)


def test_segments_finds_regimes_and_prewhitens() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=900) + np.repeat([0.0, 6.0, -2.0], 300)
    found = detect(x, np.arange(900) * 2, detector="segments")
    assert [t.step for t in found] == [600, 1200]
    assert [t.size for t in found] == pytest.approx([6, -8], abs=0.3)
    y = np.zeros(3000)
    for t in range(1, 3000):
        y[t] = 0.8 * y[t - 1] + rng.normal()
    white = prewhiten(y)
    assert abs(np.corrcoef(white[1:], white[:-1])[0, 1]) < 0.08


def test_baseline_reports_the_onset() -> None:
    x = np.random.default_rng(3).normal(size=1000)
    x[600:] += 8.0
    (t,) = detect(x, np.arange(1000) * 5, detector="baseline")
    # The mean of 50 points passes 3 SD when about 19 of them are past the step.
    assert 600 + 12 <= t.index <= 600 + 26
    assert t.step == 5 * t.index
    (late,) = detect(x, detector="baseline", persistence=30)
    assert late.index == t.index


def test_baseline_reports_a_return_too_and_flicker_once() -> None:
    x = 0.1 * np.random.default_rng(4).normal(size=1500)
    x[400:800] += 3.0
    assert len(detect(x, detector="baseline")) == 1
    x[1100:] -= 3.0
    assert len(detect(x, detector="baseline")) == 2
    assert detect(x[:100], detector="baseline") == []


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rules.py").write_text(
        "import numpy as np\n"
        "number = 3\n"
        "def big(values, steps, least=4.0):\n"
        "    return np.flatnonzero(np.abs(np.diff(values)) > least) + 1\n"
        "def steps_not_indices(values, steps):\n    return [5000]\n"
        "def floats(values, steps):\n    return [1.5]\n"
        "def nothing(values, steps):\n    return None\n"
        "def silent(values, steps):\n    return []\n"
        "def broken(values, steps):\n    return 1 / 0\n"
    )
    (tmp_path / "my_broken.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_rules", None)


def test_a_users_own_detector(own: None) -> None:
    x = np.zeros(300)
    x[100:] += 9.0
    x[200:] += 5.0
    found = detect(x, np.arange(300) * 5, detector="my_rules:big")
    assert [(t.index, t.step, t.size) for t in found] == [(100, 500, 9.0), (200, 1000, 5.0)]
    assert [t.index for t in detect(x, detector="my_rules:big", least=6.0)] == [100]
    x += 0.1 * np.random.default_rng(0).normal(size=300)
    peaks = find_peaks(x, detector="my_rules:big", draws=4)
    assert select(peaks)["index"].tolist() == [100, 200]
    assert peaks.series["draws"].tolist() == [4]
    with pytest.raises(UsageError, match="no stored thresholds"):
        select(peaks, 3.0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_rules:", "not of the form"),
        (":big", "not of the form"),
        ("my_rules:absent", "has no function 'absent'"),
        ("my_rules:number", "has no function 'number'"),
        ("no_such_rules:big", "importing 'no_such_rules' failed"),
        ("my_broken:big", "no_such_package"),
        ("my_rules:steps_not_indices", "index 5000 for 50 points"),
        ("my_rules:floats", "no list of whole numbers"),
        ("my_rules:nothing", "no list of indices"),
        ("my_rules:broken", "ZeroDivisionError"),
    ],
)
def test_mistakes_in_a_users_detector_are_named(own: None, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        detect(np.zeros(50), detector=name)


def test_every_detector_has_its_parameters_and_takes_awkward_series(own: None) -> None:
    rng = np.random.default_rng(0)
    holes = rng.normal(size=400)
    holes[[3, 200, 201]] = np.nan
    for name, detector in DETECTORS.items():
        assert detector.defaults
        assert detector.sweeps == ("threshold" in detector.defaults and name != "baseline")
        for values in (np.zeros(0), np.zeros(500), np.full(90, np.nan), holes, holes[:5]):
            assert isinstance(detect(values, detector=name), list)
    assert detect(holes, detector="my_rules:silent") == []
