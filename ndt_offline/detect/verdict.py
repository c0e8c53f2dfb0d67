"""Whether the jumps of a run are more than noise gives, judged where the detector can judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndt_offline.detect.peaks import Peaks, keeps
from ndt_offline.detect.tally import range_of
from ndt_offline.detect.trust import trusted

SURE = 0.05  # chance below which noise is not believed to give so many


@dataclass(frozen=True)
class Judgement:
    """Transitions in the series that can be judged, beside those in their matched noise.

    series: which [series]. observed: transitions in them. matched: mean per draw; low, high: the
    nominal 90 % range of one draw; more than `high` has a chance of .05 or less. NaN without draws.
    """

    series: NDArray[np.bool_]
    observed: int
    matched: float
    low: float
    high: float


def judge(peaks: Peaks, able: NDArray[np.bool_], threshold: float | None = None) -> Judgement:
    """Counts over the series on whose matched noise `steps` keeps its rate (`trusted`).

    On a smooth trend, or one that the running median and the autoregression follow badly, the
    detector fires, and matched noise fires two to four times less or more: such a count beside
    another says nothing. `able` [series] leaves more out. As the noise chooses the series, each
    draw is counted in the series that the other draws choose: else it would seem too quiet.
    """
    series, matched = able & trusted(peaks), peaks.matched
    found = keeps(peaks, peaks.found, threshold) & series[peaks.found["series"]]
    stands = keeps(peaks, matched, threshold)
    draws = int(peaks.series["draws"].max(initial=0))
    each = np.zeros((1, draws, 1), np.int64)
    for draw in range(draws):
        chosen = able & trusted(peaks, but=draw)
        each[0, draw] = (stands & (matched["draw"] == draw) & chosen[matched["series"]]).sum()
    mean, low, high = (float(x[0, 0]) for x in range_of(each))
    if draws == 0:  # too short for the detector, all of them: there is no noise beside them
        return Judgement(series, int(found.sum()), mean, low, high)
    return Judgement(series, int(found.sum()), mean, low, max(high, _most(int(each.sum()), draws)))


def _most(total: int, draws: int) -> float:
    """Largest count that noise alone gives with a chance above .05, beside `total` in 1+ draws.

    Given both counts, that of the series is binomial with a share of 1 / (1 + draws): beside
    nothing in ten draws, a single jump (1/11) is not yet more than noise.
    """
    from scipy.special import bdtrc

    most, share = total // draws, 1.0 / (1 + draws)
    while bdtrc(most, most + 1 + total, share) > SURE:  # of most + 1 or more
        most += 1
    return float(most)
