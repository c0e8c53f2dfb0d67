"""Couplings and phases against planted truth: `python tests/benchmarks/relate.py WHAT --seed N`.

WHAT is battery (false positives and power), phases (calls and coverage), speed, or all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from ndt_offline.relate import Phase, PhaseFit, couplings_table, fit_phases
from ndt_offline.relate.battery import relate_battery
from ndt_offline.relate.cells import NULLS, filtered
from ndt_offline.relate.ranks import spearman

STEPS = np.arange(1600) * 5.0
CLOCK = np.log1p(STEPS)
END = float(CLOCK[-1])
DEVIATION = 0.3

Noise = Callable[[np.random.Generator], np.ndarray]


def ar(phi: float, deviation: float = DEVIATION) -> Noise:
    def draw(rng: np.random.Generator) -> np.ndarray:
        white = rng.normal(size=(1, len(STEPS) + 2500))
        return deviation * np.sqrt(1 - phi**2) * filtered(white, phi)[0, -len(STEPS) :]

    return draw


def calming(phi: float) -> Noise:
    """The same, ten times as large at the first steps as at the last."""
    size = np.exp(-np.log(10) * CLOCK / END)
    return lambda rng: ar(phi)(rng) * size * 3


def curve(knots: list[float], values: list[float]) -> np.ndarray:
    return np.interp(CLOCK, knots, values)


def holds(phase: Phase, knot: float) -> bool:
    return phase.start_low <= np.expm1(knot) <= phase.start_high


def trial(rng: np.random.Generator, noise: Noise) -> dict[str, float]:
    """One straight line, one curve of two phases, one of three, each with noise of its own."""
    first, second = rng.uniform(3, 5.5), 0.0
    second = rng.uniform(first + 1.2, 8)
    bend = rng.choice([-0.5, 0.5, 1.0, 1.5])
    line = curve([0, END], [3, rng.uniform(0, 3)])
    two = curve([0, first, END], [3, 1, 1 + bend])
    three = curve([0, first, second, END], [4, 2, 3.2, 3.2])
    rows = np.stack([truth + noise(rng) for truth in (line, two, three)])
    chosen = fit_phases(rows, STEPS, seed=int(rng.integers(2**31)))
    # Fresh draws for every trial: 99 shared ones would be one sample of quantiles, not many.
    seed = int(rng.integers(2**31))
    fixed = fit_phases(rows[1:2], STEPS, phases=2, seed=seed)
    fixed += fit_phases(rows[2:], STEPS, phases=3, seed=seed)
    return {
        "bent": len(chosen[0].phases) > 1,
        "two->three": len(chosen[1].phases) == 3,
        "three found": len(chosen[2].phases) == 3,
        "labels right": [p.label for p in chosen[2].phases] == ["falls", "rises", "stable"],
        "break of two": holds(fixed[0].phases[1], first),
        "first of three": holds(fixed[1].phases[1], first),
        "second of three": holds(fixed[1].phases[2], second),
        **changes_held(fixed[1], [-2.0, 1.2, 0.0]),
    }


def changes_held(fit: PhaseFit, truth: list[float]) -> dict[str, float]:
    pairs = zip(fit.phases, truth, strict=True)
    return {f"change {i + 1}": p.low <= change <= p.high for i, (p, change) in enumerate(pairs)}


def phases(trials: int, seed: int) -> None:
    cells = {f"AR {phi}": ar(phi) for phi in (0.0, 0.5, 0.9, 0.97)} | {
        "AR 0.9, half": ar(0.9, DEVIATION / 2),
        "calming, white": calming(0.0),
        "calming, AR .9": calming(0.9),
    }
    for name, noise in cells.items():
        rng = np.random.default_rng([seed, len(name), ord(name[-1])])
        results = [trial(rng, noise) for _ in range(trials)]
        shares = {key: np.mean([r[key] for r in results]) for key in results[0]}
        print(f"{name:16}" + "  ".join(f"{k} {v:.3f}" for k, v in shares.items()), flush=True)


def battery(pairs: int, seed: int) -> None:
    print(f"{'cell':34}{'truth':13}{'<=.05':>7}{'<=.01':>8}{'q<=.05':>8}   parts at .05")
    for cell in relate_battery(pairs, seed=seed):
        parts = f"{cell.shift:.3f} {cell.detrended:.3f} {cell.differenced:.3f} {cell.lag:.3f}"
        print(
            f"{cell.name:34}{cell.truth:13}{cell.at_5:7.3f}{cell.at_1:8.4f}{cell.verdict:8.3f}"
            f"   {parts}"
        )


def best(work: Callable[[], object], times: int = 5) -> float:
    """Least processor time of one call: what others do on the machine is not counted."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def speed() -> None:
    rng = np.random.default_rng(0)
    x, y = NULLS["loss-like decays"](rng, 1000, 1600), NULLS["loss-like decays"](rng, 3, 1600)
    three = curve([0, 4, 7.5, END], [4, 2, 3.2, 3.2])
    rows = np.stack([three + ar(0.5)(rng) for _ in range(1000)])
    print(f"rho of 1000 x 3 x 1600: {best(lambda: spearman(x, y)):.3f} s")
    print(f"all statistics: {best(lambda: couplings_table(x, y, STEPS)):.2f} s")
    print(f"1000 fits without intervals: {best(lambda: fit_phases(rows, STEPS, draws=0), 2):.1f} s")
    print(
        f"a fit with 99 draws: {best(lambda: fit_phases(rows[:20], STEPS, draws=99), 3) / 20:.3f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["battery", "phases", "speed", "all"])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.what in ("speed", "all"):
        speed()
    if asked.what in ("battery", "all"):
        battery(asked.pairs, asked.seed)
    if asked.what in ("phases", "all"):
        phases(asked.trials, asked.seed)


if __name__ == "__main__":
    main()
