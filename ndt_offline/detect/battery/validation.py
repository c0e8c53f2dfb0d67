"""The battery run on a detector: false positives, recall, location error, a plain verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import isnan
from secrets import randbits
from time import perf_counter
from typing import Any

import numpy as np

from ndt_offline.detect.battery.nulls import GAUSSIAN, HARD, NULLS, Null
from ndt_offline.detect.battery.positives import LIMITED, POSITIVES, SIZES
from ndt_offline.detect.detectors import detect
from ndt_offline.detect.surrogates import matched_noise
from ndt_offline.detect.transition import Array, Points
from ndt_offline.errors import UsageError

NEAR = 10  # points from a planted step that count as having found it
FEW = 0.2  # false positives per 1000 points that a detector may have on a null
FEW_HARD = 0.5
MOST = 0.95  # share of steps of 4 local SD and more that it should find
MOST_LIMITED = 0.75
UNKNOWABLE = "t3 in walk"
LEVEL = 0.05  # of p, at which calibration is looked at


@dataclass(frozen=True)
class Cell:
    """One row of the table. kind: null or steps. sigmas: size of the planted steps, 0 on a null.

    false, false_se: false positives per 1000 points and its standard error over series.
    recall, recall_se: share of planted steps found within 10 points; NaN on a null.
    location: median distance of those found, in points. calibration: share of the null's series
    with a p of at most .05 anywhere, over .05: 1 is exact, below is conservative; NaN without p.
    """

    kind: str
    name: str
    sigmas: float
    seeds: int
    false: float
    false_se: float
    recall: float = float("nan")
    recall_se: float = float("nan")
    location: float = float("nan")
    calibration: float = float("nan")

    @property
    def allowed(self) -> float:
        """False positives per 1000 that the verdict lets pass on this null."""
        if self.name == UNKNOWABLE:
            return float("inf")
        return FEW_HARD if self.name in HARD else FEW

    @property
    def wanted(self) -> float:
        """Recall that the verdict asks for; 0 below 4 local SD."""
        if self.sigmas < 4 or self.name == UNKNOWABLE:
            return 0.0
        return MOST_LIMITED if self.name in LIMITED else MOST

    @property
    def wrong(self) -> str:
        """What is wrong with it, by more than two standard errors, in words; empty if nothing."""
        if self.kind == "null" and self.false - 2 * self.false_se > self.allowed:
            return (
                f"fires {self.false:.2g} times per 1000 points of {self.name!r}, where nothing is "
                f"(up to {self.allowed:g} is acceptable)"
            )
        if self.kind == "steps" and self.recall + 2 * self.recall_se < self.wanted:
            return (
                f"finds {self.recall:.0%} of {self.sigmas:g}-sigma steps in {self.name!r} "
                f"({self.wanted:.0%} should be found)"
            )
        return ""


@dataclass(frozen=True)
class Validation:
    """The table of a detector, with the seed that repeats it."""

    detector: str
    params: dict[str, Any]
    seed: int
    n: int
    cells: tuple[Cell, ...]
    seconds: float

    @property
    def failures(self) -> list[str]:
        """What is wrong, by more than two standard errors, in words; the worst first."""
        wrong = sorted(self.cells, key=lambda c: (c.kind, c.recall if c.recall_se else 0, -c.false))
        return [c.wrong for c in wrong if c.wrong]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table as plain dictionaries."""
        return [asdict(c) for c in self.cells]

    @property
    def verdict(self) -> str:
        """One plain paragraph."""
        nulls = [c for c in self.cells if c.kind == "null" and c.name != UNKNOWABLE]
        steps = [c for c in self.cells if c.wanted > 0]
        facts = []
        if nulls:
            worst = max(nulls, key=lambda c: c.false)
            facts.append(f"Most false reports: {worst.false:.2f} per 1000 points ({worst.name}).")
        if steps:
            least = min(steps, key=lambda c: c.recall)
            facts.append(
                f"Fewest steps found, of those of 4 SD and more: {least.recall:.0%} ({least.name})."
            )
        shares = [c.calibration for c in nulls if c.name in GAUSSIAN and not isnan(c.calibration)]
        if shares and self.detector == "steps":
            facts.append(
                f"p is conservative: p <= {LEVEL:g} in {np.mean(shares) * LEVEL:.1%} of Gaussian "
                f"series without a step (worst kind {max(shares) * LEVEL:.1%})."
                if max(shares) <= 1
                else f"p <= {LEVEL:g} in up to {max(shares) * LEVEL:.1%} of Gaussian series of one "
                "kind without a step."
            )
        wrong = self.failures
        head = "can be believed" if not wrong else "cannot be believed as it is"
        more = [f"and {len(wrong) - 5} more of the kind"] if len(wrong) > 6 else []
        lines = wrong[:5] + more if more else wrong
        return f"{self.detector}: {head}. {' '.join(facts)}" + "".join(
            f"\n  - {line}" for line in lines
        )


def validate(
    detector: str = "steps",
    seeds: int = 20,
    seed: int | None = None,
    n: int = 1600,
    sizes: Iterable[float] = SIZES,
    nulls: Iterable[str] | None = None,
    positives: Iterable[str] | None = None,
    series: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
    **params: Any,
) -> Validation:
    """Run a detector on the battery: `seeds` series of n points per cell.

    Fresh seeds each time unless `seed` is given; the result carries the seed. `nulls` and
    `positives` choose cells by name; `series` (name to values) adds nulls matched to your own
    series, as drawn by `matched_noise`. 20 seeds are enough to see a detector that is no good; a
    rate of 0.2 per 1000 needs 200.
    """
    base = randbits(32) if seed is None else seed
    start = perf_counter()
    jobs: list[Callable[[], Cell]] = [
        partial(run_null, name, NULLS[name], detector, seeds, base, n, params)
        for name in (NULLS if nulls is None else nulls)
    ]
    for name, values in (series or {}).items():
        make = partial(_like, np.asarray(values, np.float64))
        size = len(values)
        jobs.append(partial(run_null, f"like {name}", make, detector, seeds, base, size, params))
    jobs += [
        partial(run_steps, name, k, detector, seeds, base, n, params)
        for name in (POSITIVES if positives is None else positives)
        for k in sizes
    ]
    cells = []
    for done, job in enumerate(jobs, start=1):
        cells.append(job())
        if progress:
            left = (perf_counter() - start) / done * (len(jobs) - done)
            progress(f"{done} of {len(jobs)} kinds of series, about {left:.0f} s left")
    return Validation(detector, params, base, n, tuple(cells), perf_counter() - start)


def rng_of(base: int, name: str, sigmas: float, k: int) -> np.random.Generator:
    return np.random.default_rng([base, int(10 * sigmas), k, *name.encode()])


def _like(values: Array, rng: np.random.Generator, n: int) -> Array:
    """One draw of noise matched to a series."""
    noise = matched_noise(values, np.arange(n), 1, int(rng.integers(2**32)))
    if not len(noise):
        raise UsageError("a series cannot be tested: too short, constant or not finite")
    return noise[0]


def run_null(
    name: str,
    make: Null,
    detector: str,
    seeds: int,
    base: int,
    n: int,
    params: dict[str, Any],
) -> Cell:
    """One null: everything reported is false."""
    false, small = np.empty(seeds), np.zeros(seeds)
    known = True
    for k in range(seeds):
        x = make(rng_of(base, name, 0, k), n)
        p = [t.p for t in detect(x, detector=detector, **params)]
        false[k], small[k] = len(p), min(p, default=1.0) <= LEVEL
        known = known and not any(map(isnan, p))
    share = float(small.mean() / LEVEL) if known else float("nan")
    return Cell("null", name, 0.0, seeds, *_rate(false, n), calibration=share)


def run_steps(
    name: str,
    sigmas: float,
    detector: str,
    seeds: int,
    base: int,
    n: int,
    params: dict[str, Any],
) -> Cell:
    """One kind of planted steps at one size."""
    found, false, distances = np.empty(seeds), np.empty(seeds), []
    for k in range(seeds):
        x, planted = POSITIVES[name](rng_of(base, name, sigmas, k), n, sigmas)
        reported = np.array([t.index for t in detect(x, detector=detector, **params)], np.int64)
        near, extra = match(planted, reported)
        found[k], false[k] = len(near) / len(planted), extra
        distances += near
    error = float(found.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else float("nan")
    location = float(np.median(distances)) if distances else float("nan")
    rate = _rate(false, n)
    return Cell(
        "steps", name, sigmas, seeds, *rate, float(found.mean()), max(error, 0.5 / seeds), location
    )


def match(planted: Points, reported: Points) -> tuple[list[int], int]:
    """Distance of the nearest report for each planted step found; reports near none of them."""
    if not len(reported):
        return [], 0
    distance = np.abs(np.asarray(planted)[:, None] - reported[None])
    near = distance.min(axis=1)
    return near[near <= NEAR].tolist(), int((distance.min(axis=0) > NEAR).sum())


def _rate(false: Array, n: int) -> tuple[float, float]:
    """Per 1000 points, and standard error over series; at least that of one count."""
    scale = 1000 / n
    spread = false.std(ddof=1) if len(false) > 1 else 1.0
    return float(false.mean() * scale), float(
        max(spread, 1 / len(false)) / len(false) ** 0.5
    ) * scale
