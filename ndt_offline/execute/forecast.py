"""A forecast: how long a whole analysis will take, from small pieces of it done here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ndt_offline.execute.estimate import duration
from ndt_offline.execute.question import Question
from ndt_offline.execute.relations import phased_metrics
from ndt_offline.execute.replay_all import WORTH
from ndt_offline.store.results import SeriesId

SHORT = 2000  # points of the series that are tried; longer ones take in proportion
WRITING = 1.5  # seconds to write and read what is derived, whatever it is
DRAWING = 0.6  # seconds of a report without series, and for each of them
EACH = 0.006
CLUSTER = 1.5  # a cluster is there after this many times what this process took to start


@dataclass(frozen=True)
class Forecast:
    """Seconds of the parts of an analysis, one after another."""

    start: float
    replay: float
    derive: float
    draw: float

    @property
    def total(self) -> float:
        return self.start + self.replay + self.derive + self.draw

    def __str__(self) -> str:
        parts = (f"{duration(self.start)} to start", f"{duration(self.replay)} to replay")
        return ", ".join((*parts, f"{duration(self.derive + self.draw)} to derive and draw"))


def replay_seconds(rows: int, each: float, workers: int, start: float) -> float:
    """Of a replay: one process, joined by the others where the work is worth a cluster."""
    work = rows * each
    alone = CLUSTER * start
    if workers < 2 or work < max(WORTH, alone):
        return work
    return alone + (work - alone) / workers


def derive_seconds(
    layers: int,
    steps: int,
    question: Question,
    workers: int,
    measured: Mapping[str, int] = MappingProxyType({}),
) -> float:
    """Of what follows from what is stored, by trying one series of noise.

    measured: how many series there are of each quantity of a measure.
    """
    from ndt_offline.detect.peaks import find_peaks
    from ndt_offline.relate import correlate, fit_phases

    counts = {**dict.fromkeys(question.metrics, layers), **measured}
    ids = tuple(SeriesId("", str(n), name) for name in counts for n in range(counts[name]))
    if not ids:
        return WRITING
    phased = sum(one.metric in phased_metrics(question, ids) for one in ids)
    walk = np.random.default_rng(0).standard_normal(min(steps, SHORT)).cumsum()
    longer, draws = steps / len(walk), question.draws
    given = dict(question.params)
    jumps = _timed(lambda: find_peaks(walk, None, question.detector, draws, 0, **given))
    couplings = _timed(lambda: correlate([walk] * 8, [walk] * 3)) / 8
    phases = _timed(lambda: fit_phases([walk], draws=question.phase_draws))
    work = len(ids) * (jumps + couplings) + phased * phases
    return WRITING + longer * work / workers


def draw_seconds(
    layers: int, question: Question, measured: Mapping[str, int] = MappingProxyType({})
) -> float:
    """Of the report."""
    return DRAWING + EACH * (layers * len(question.metrics) + sum(measured.values()))


def _timed(work: Callable[[], object]) -> float:
    """Seconds, the better of two: the first may load libraries."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        with np.errstate(all="ignore"):
            work()
        found.append(time.perf_counter() - started)
    return min(found)
