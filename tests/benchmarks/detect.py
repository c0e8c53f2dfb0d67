"""Long measurements of the detectors: python tests/benchmarks/detect.py WHAT [SEEDS]."""

from __future__ import annotations

import sys
import time

import numpy as np

from ndt_offline.detect import detect
from ndt_offline.detect.battery.noises import NOISES
from ndt_offline.detect.battery.nulls import GAUSSIAN, NULLS, dense_start, gaps, missing
from ndt_offline.detect.battery.positives import POSITIVES
from ndt_offline.detect.battery.validation import validate
from ndt_offline.detect.events import find_events
from ndt_offline.detect.evidence import p_value
from ndt_offline.detect.gls import accepted, candidates
from ndt_offline.detect.peaks import find_peaks, join_peaks
from ndt_offline.detect.rolling import crossings
from ndt_offline.detect.tally import counts

N = 1600
WHICH = sys.argv[4:]
MATCHED = ("white", "AR .5", "AR .9", "walk", "t5 in AR .7", "t5 in walk", "GARCH", "decays")


def table(seeds: int, seed: int, **kw: object) -> None:
    result = validate(seeds=seeds, seed=seed, **kw)  # type: ignore[arg-type]
    for c in result.cells:
        print(
            f"{c.kind:5s} {c.name:22s} {c.sigmas:3.0f}  false {c.false:6.3f} +- {c.false_se:.3f}"
            f"  recall {c.recall:5.3f} +- {c.recall_se:.3f}  location {c.location:.1f}"
        )
    print(result.verdict, f"\n{result.seconds:.0f} s")


def few(seeds: int, seed: int) -> None:
    hard = (
        "GARCH",
        "t5 in AR .7",
        "t5 in walk",
        "glitches of 2",
        "glitches of 3",
        "white",
        "AR .9",
        "walk",
    )
    table(
        seeds,
        seed,
        nulls=hard,
        positives=("AR .5", "t5 in AR .7", "walk + white", "ARMA"),
        sizes=(4.0,),
    )


def order(seeds: int, seed: int) -> None:
    cells = ("white", "AR .5", "AR .7", "AR .9", "walk", "walk + white", "ARMA", "momentum")
    table(seeds, seed, nulls=cells, positives=cells, sizes=(4.0,))


def rounds(seeds: int, seed: int) -> None:
    cells = ("AR .5", "AR .7", "AR .9", "walk + white", "20 steps")
    table(
        seeds,
        seed,
        nulls=("AR .9", "walk", "ramp", "glitches of 2", "glitches of 3", "GARCH", "t5 in walk"),
        positives=cells,
        sizes=(4.0,),
    )


def nulls(seeds: int, seed: int) -> None:
    table(seeds, seed, positives=())


def steps(seeds: int, seed: int) -> None:
    table(seeds, seed, nulls=(), sizes=(4.0, 6.0))


def calibration(seeds: int, seed: int) -> None:
    """Share of Gaussian nulls whose smallest p is at most q; 1.5 q is allowed."""
    levels = np.array([0.01, 0.02, 0.05, 0.1, 0.2])
    for name in GAUSSIAN:
        rows = []
        for k in range(seeds):
            x = NULLS[name](np.random.default_rng([seed, k, *name.encode()]), N)
            columns, _, fits = candidates(x, np.arange(N), describe=False)
            T = np.abs(fits[0].ranking.T).max(initial=0.0)
            rows.append(p_value(T, N) if len(columns["nu"]) else 1.0)
        share = (np.array(rows)[:, None] <= levels).mean(axis=0)
        print(
            f"{name:16s}",
            "  ".join(f"{q:g}: {s / q:4.2f} q" for q, s in zip(levels, share, strict=True)),
        )


def intervals(seeds: int, seed: int) -> None:
    """Coverage of the nominal 90 % intervals of planted steps, and selection bias."""
    for name in ("white", "AR .5", "AR .7", "AR .9", "walk", "calming white", "ramp"):
        for k in (2.0, 3.0, 4.0, 6.0):
            rows = [r for s in range(seeds) if (r := one_interval(name, k, seed, s))]
            if not rows:
                continue
            T, place, wide, size, ratio, fair = np.array(rows, float).T
            said = f"{name:14s} {k:g} sigma  found {len(rows) / seeds:.2f}"
            said += f"  size / truth {ratio.mean():.2f}, unbiased {np.median(fair):.2f} (median)"
            print(said + f"  size all {size.mean():.3f}" + covered(T >= 6, place, wide, size))


def one_interval(name: str, k: float, seed: int, s: int) -> tuple[float, ...] | None:
    """|T|, whether the step and its size are held, width of the interval, size over truth."""
    base = [seed, s, int(k), *name.encode()]
    x, (at,) = POSITIVES[name](np.random.default_rng(base), N, k)
    planted = (x - POSITIVES[name](np.random.default_rng(base), N, 0.0)[0])[-1]
    near = [t for t in detect(x) if abs(t.index - at) <= 10]
    if not near:
        return None
    t = near[0]
    held = t.low <= at <= t.high, t.size_low <= planted <= t.size_high
    return abs(t.T), held[0], t.high - t.low, held[1], t.size / planted, t.size_unbiased / planted


def covered(rows: np.ndarray, place: np.ndarray, wide: np.ndarray, size: np.ndarray) -> str:
    if not rows.any():
        return ""
    share, some = size[rows].mean(), rows.sum()
    return (
        f"  T >= 6: {some}  step {place[rows].mean():.3f} ({wide[rows].mean():.1f})"
        f"  size {share:.3f} +- {(share * (1 - share) / some) ** 0.5:.3f}"
    )


def irregular(seeds: int, seed: int) -> None:
    """False positives per 1000 points on irregularly sampled nulls."""
    for name in ("white", "AR .9", "walk", "decays"):
        for how in ("dense", "gaps", "missing"):
            count, points, states = 0, 0, []
            for s in range(seeds):
                rng = np.random.default_rng([seed, s, *name.encode()])
                x = NULLS[name](rng, 12400 if how == "dense" else N)
                if how == "dense":
                    values, steps = dense_start(x)
                else:
                    values, steps = gaps(x) if how == "gaps" else missing(rng, x)
                columns, status, _ = candidates(values, steps, describe=False)
                states.append(status)
                count += int(accepted(columns, 4.7).sum())
                points += len(values)
            print(
                f"{name:8s} {how:8s} {1000 * count / points:.3f} of {points}; status {set(states)}"
            )


def matched(seeds: int, seed: int) -> None:
    """Pooled matched counts beside the true false positives of ten times as many series."""
    levels = [4.0, 4.7]
    for name in WHICH or MATCHED:
        truth, draws = np.zeros((10 * seeds, 2)), np.zeros((seeds, 2))
        for s in range(10 * seeds):
            x = NULLS[name](np.random.default_rng([seed, s, *name.encode()]), N)
            if s >= seeds:
                columns = candidates(x, np.arange(N), describe=False)[0]
                truth[s] = [accepted(columns, level).sum() for level in levels]
                continue
            c = counts(find_peaks(x, draws=10, seed=(seed, s)), levels)
            truth[s], draws[s] = c.observed[0], c.matched[0]
        said = [ratio_of(truth[:, j], draws[:, j]) for j in range(2)]
        print(f"{name:12s} T 4: {said[0]}   T 4.7: {said[1]}", flush=True)


def ratio_of(truth: np.ndarray, draws: np.ndarray) -> str:
    """Rates per 1000 points, their ratio and its 90 % range (log-normal, series independent)."""
    a, b = truth.mean(), draws.mean()
    if not a or not b:
        return f"true {a / 1.6:.3f} matched {b / 1.6:.3f}"
    spread = sum(v.var() / len(v) / v.mean() ** 2 for v in (truth, draws)) ** 0.5 * 1.645
    low, high = b / a * np.exp([-spread, spread])
    return f"true {a / 1.6:.3f} matched {b / 1.6:.3f} ratio {b / a:.2f} ({low:.2f}-{high:.2f})"


def events(seeds: int, seed: int) -> None:
    """Runs with a false event, and power for a lone step among 50 series."""
    at = np.arange(N)
    false = {"independent": 0.0, "dependent": 0.0, "heavy": 0.0}
    lone = {"white": 0, "walk": 0}
    for s in range(seeds):
        rng = np.random.default_rng([seed, s])
        kinds = ("white", "AR .5", "AR .9", "walk", "decays")
        free = [NULLS[kinds[j % 5]](rng, N) for j in range(50)]
        groups = []
        for j in range(10):
            common = NOISES[kinds[j % 4]](rng, N)
            groups += [common + 0.3 * NOISES[kinds[j % 4]](rng, N) for _ in range(5)]
        wild = ("t5 in AR .7", "t5 in walk", "GARCH", "t3", "glitches of 2")
        heavy = [NULLS[wild[j % 5]](rng, N) for j in range(50 if s < seeds // 4 else 0)]
        for what, series in (("dependent", groups), ("heavy", heavy), ("independent", free)):
            if not series:
                continue
            peaks = [find_peaks(x, draws=0) for x in series]
            false[what] += bool(find_events(join_peaks(peaks), at))
            if what != "independent":
                continue
            for name in lone:
                x, (where,) = POSITIVES[name](rng, N, 4.0)
                peaks[0] = find_peaks(x, draws=0)
                got = find_events(join_peaks(peaks), at)
                lone[name] += any(abs(e.index - where) <= 10 for e in got)
    false["heavy"] *= seeds / max(1, seeds // 4)
    print({k: v / seeds for k, v in (false | lone).items()}, f"of {seeds} runs")


def speed(seeds: int, seed: int) -> None:
    """Milliseconds per series of 1600 points, over kinds of series."""
    at, rng = np.arange(N) * 5, np.random.default_rng(seed)
    for name in ("white", "AR .9", "walk", "decays", "t5 in walk"):
        series = [NULLS[name](rng, N) for _ in range(seeds)]
        series2 = [POSITIVES[name](rng, N, 4.0)[0] for _ in range(seeds)]
        for what, rows in (("null", series), ("one step", series2)):
            start = time.process_time()
            for x in rows:
                candidates(x, at)
            plain = (time.process_time() - start) / seeds
            start = time.process_time()
            for x in rows[: seeds // 5]:
                find_peaks(x, at, draws=10)
            drawn = (time.process_time() - start) / (seeds // 5) - plain
            print(f"{name:12s} {what:9s} {1e3 * plain:.2f} ms   10 draws {1e3 * drawn:.1f} ms")
    x = rng.normal(size=(1000, N))
    start = time.process_time()
    crossings(x)
    print(f"zscore, 1000 series: {time.process_time() - start:.3f} s")
    p = join_peaks([join_peaks([find_peaks(row, at, seed=k) for k, row in enumerate(x[:20])])] * 50)
    start = time.process_time()
    counts(p, np.arange(4.0, 8.0, 0.04), groups=np.arange(1000) % 13)
    print(f"100 thresholds, 1000 series: {time.process_time() - start:.4f} s")


if __name__ == "__main__":
    what, count = sys.argv[1], int(sys.argv[2])
    base = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    globals()[what](count, base)
