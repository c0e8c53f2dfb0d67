"""The claims of the article, each put to recorded runs: by its definitions, and by ours.

The article: "I Measured Neural Network Training Every 5 Steps for 10,000 Iterations" (J. Marín,
Towards Data Science, November 2025). Its definitions: the four metrics of its tool, every layer,
a z-score over a window of 50 samples, Spearman's rho of the levels. It measured the training
batch of each step; here it is a fixed probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from article_statistics import Values, estimate, judged, lowest, rho, smoothed

from ndt_offline.detect import detect
from ndt_offline.detect.rates import join_rates, rates_of
from ndt_offline.report.summary import summary_rows
from ndt_offline.report.tidy import rows_of, tidy_table
from ndt_offline.store.results import Results

METRICS = ("stable_rank", "participation_ratio_sv", "components_90", "nuclear_norm_ratio")
SMOOTH = ("stable_rank", "participation_ratio_sv", "nuclear_norm_ratio")  # no whole numbers


@dataclass(frozen=True)
class Line:
    """One claim: what the article says, what its definitions and ours give, one value per seed."""

    number: str
    claim: str
    said: str
    theirs: Values
    ours: Values
    verdict: str
    why: str


def series_of(run: Results, space: str, metrics: Sequence[str] = METRICS) -> list[np.ndarray]:
    """Every layer's series of those metrics."""
    return [column for metric in metrics for column in run.metric(space, metric).T]


def jumps(run: Results, space: str, threshold: float) -> np.ndarray:
    """Training steps of all z-score jumps in the four metrics of every layer of a space."""
    rows = (detect(r, run.steps, "zscore", threshold=threshold) for r in series_of(run, space))
    return np.array([t.step for row in rows for t in row], np.float64)


def noise_jumps(series: int, n: int, draws: int = 20) -> float:
    """z-score jumps (z 3) in that many series of white noise of n samples: mean over draws."""
    noise = np.random.default_rng(0).standard_normal((draws * series, n))
    found = sum(len(detect(row, detector="zscore", threshold=3.0)) for row in noise)
    return found / draws


def robust(run: Results, space: str) -> tuple[np.ndarray, float]:
    """Steps of our transitions in the same series, and how many matched noise gives."""
    rows = [r for r in rows_of(tidy_table(run, "transitions")) if _counts(r, space)]
    expected = sum(r["expected"] or 0.0 for r in summary_rows(run) if _counts(r, space))
    return np.array([r["step"] for r in rows], np.float64), float(expected)


def _counts(row: dict, space: str) -> bool:
    return row["space"] == space and row["metric"] in METRICS


def phases(runs: Sequence[Results]) -> Line:
    """Collapse, then expansion, then stabilisation."""
    order = ["falls", "rises", "stable"]
    ours, theirs = [], []
    for run in runs:
        found: dict[tuple, list[str]] = {}
        for row in rows_of(tidy_table(run, "phases")):
            if _counts(row, "activations"):
                found.setdefault((row["layer"], row["metric"]), []).append(row["label"])
        ours.append(np.mean([labels == order for labels in found.values()]))
        theirs.append(np.mean([_three(run.steps, row) for row in series_of(run, "activations")]))
    return Line(
        "1", "activations collapse (to step 300), expand (to 5000), then stabilise",
        "all layers", theirs, ours, judged(ours, 0.8, 1.0),
        "share of series; left: mean level falls, rises, stays at the article's steps; "
        "right: phases fitted with their number tested",
    )  # fmt: skip


def _three(steps: np.ndarray, row: np.ndarray) -> bool:
    """Whether a series falls to step 300, rises to 5000, and then stays within a tenth."""
    marks = [np.nanmedian(row[np.abs(steps - s) <= 50]) for s in (0, 300, 5000, steps[-1])]
    start = row[np.isfinite(row)][0]
    fall, rise, rest = marks[1] - start, marks[2] - marks[1], marks[3] - marks[2]
    return bool(
        fall < 0 < rise and abs(rest) < 0.1 * np.nanmax(np.abs(np.diff([start, *marks[1:]])))
    )


def height(runs: Sequence[Results]) -> Line:
    """2500 dimensions in a network whose widest layer has 256."""
    top = [max(np.nanmax(row) for row in series_of(run, "activations")) for run in runs]
    return Line(
        "1b", "dimensionality goes 2500 → 500 → 1000", "2500", top, top, judged(top, 500, 2500),
        "highest value of any activation series; none can exceed its layer's width, 256",
    )  # fmt: skip


def counts(runs: Sequence[Results]) -> list[Line]:
    """About 85 jumps in activations, one in weights."""
    lines, noise = [], noise_jumps(12, len(runs[0].steps))
    for number, space, said in (("2a", "activations", 85), ("2b", "weights", 1)):
        theirs = [float(len(jumps(run, space, 3.0))) for run in runs]
        both = [robust(run, space) for run in runs]
        ours = [float(len(steps)) for steps, _ in both]
        chance = estimate([expected for _, expected in both], 1)
        low, high = (said / 1.5, said * 1.5) if said > 1 else (0, 2)
        lines.append(Line(
            number, f"about {said} jump{'s' * (said > 1)} in {space}", str(said), theirs, ours,
            judged(theirs, low, high),
            f"4 metrics x 3 layers; right: steps at 4.7, by chance {chance}; the z-score rule "
            f"gives {noise:.0f} on twelve series of white noise",
        ))  # fmt: skip
    return lines


def early(runs: Sequence[Results]) -> Line:
    """Two thirds of the jumps in the first quarter of training."""
    theirs, ours = [], []
    for run in runs:
        quarter = run.steps[-1] / 4
        theirs.append(float(np.mean(jumps(run, "activations", 3.0) <= quarter)))
        own = robust(run, "activations")[0]
        ours.append(float(np.mean(own <= quarter)) if len(own) else np.nan)
    ours = [value for value in ours if value == value]
    return Line(
        "3", "two thirds of the jumps are in the first quarter", "0.67", theirs, ours,
        judged(theirs, 0.57, 0.77),
        "share in activations; jumps spread evenly would give 0.25; the few on the right are no "
        "more than by chance",
    )  # fmt: skip


def couplings(runs: Sequence[Results]) -> list[Line]:
    """rho of dimension with loss and gradient norm."""
    lines = []
    for number, target, said in (("4a", "loss", -0.951), ("4b", "grad_norm", -0.701)):
        theirs, smooth, clock, beyond = [], [], [], []
        for run in runs:
            goal = run.signal(target)
            rows = series_of(run, "activations", ("stable_rank",))
            theirs.append(lowest(rows, goal))
            smooth.append(lowest([smoothed(row) for row in rows], smoothed(goal)))
            calm = smoothed(goal)
            clock.append(rho(np.arange(len(calm)), calm))
            pairs = [r for r in rows_of(tidy_table(run, "couplings")) if _pair(r, target)]
            beyond.append(float(np.mean([(r["q"] or 0.0) <= 0.05 for r in pairs])))
        lines.append(Line(
            number, f"rho(dimension, {target}) = {said}", str(said), theirs, beyond,
            judged(theirs, said - 0.1, said + 0.1),
            f"most negative layer, stable rank; over 100 samples {estimate(smooth)}, where "
            f"training time alone gives {estimate(clock)}; right: share of activation series "
            "coupled beyond time (q ≤ .05)",
        ))  # fmt: skip
    return lines


def _pair(row: dict, target: str) -> bool:
    return row["target"] == target and _counts(row, "activations") and row["q"] is not None


def rise(runs: Sequence[Results]) -> Line:
    """Dimension 9.0 to 9.6 while the loss goes to zero."""
    ends = []
    for run in runs:
        rows = series_of(run, "activations", ("stable_rank",))
        ends.append(float(np.mean([np.nanmean(r[-50:]) / r[np.isfinite(r)][0] for r in rows])))
    return Line(
        "4c", "dimension grows by 7 % (9.0 → 9.6)", "1.07", ends, ends, judged(ends, 1.0, 1.2),
        "stable rank of activations, end over start, mean of layers; single layers differ in sign",
    )  # fmt: skip


def sampling(runs: Sequence[Results]) -> Line:
    """Every 5 steps finds ten times the jumps of every 50."""
    ratios: dict[str, list[float]] = {"zscore": [], "steps": []}
    noise = []
    for run in runs:
        rows = series_of(run, "activations", SMOOTH)
        for name, found in ratios.items():
            rates = join_rates(
                rates_of(row, run.steps, name, (5, 50), 1 if name == "zscore" else 0, seed)
                for seed, row in enumerate(rows)
            )
            if rates.found[1] > 0:
                found.append(float(rates.found[0] / rates.found[1]))
            if name == "zscore" and rates.matched[1] > 0:
                noise.append(float(rates.matched[0] / rates.matched[1]))
    few = f"; right: {len(ratios['steps'])} of {len(runs)} seeds, the others have no jump at 50"
    return Line(
        "5", "every 5 steps finds ten times the jumps of every 50", "10", ratios["zscore"],
        ratios["steps"], judged(ratios["zscore"], 7, 14),
        f"ratio, 3 metrics x 3 layers of activations; on matched noise the z-score gives "
        f"{estimate(noise, 1)}: it follows from the number of samples"
        + few * (len(ratios["steps"]) < len(runs)),
    )  # fmt: skip


def all_claims(runs: Sequence[Results], told: Callable[[str], None]) -> list[Line]:
    """Every claim that stored runs can answer, in the article's order."""
    lines: list[Line] = []
    for claim in (phases, height, counts, early, couplings, rise, sampling):
        told(claim.__doc__ or "")
        found = claim(runs)
        lines += found if isinstance(found, list) else [found]
    return lines
