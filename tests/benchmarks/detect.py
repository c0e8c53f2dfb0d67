"""Long measurements of the detectors: python tests/benchmarks/detect.py WHAT [SEEDS]."""

from __future__ import annotations

import sys
import time

import numpy as np

from ndt_offline.detect.battery.validation import validate


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


def nulls(seeds: int, seed: int) -> None:
    table(seeds, seed, positives=())


def steps(seeds: int, seed: int) -> None:
    table(seeds, seed, nulls=(), sizes=(4.0, 6.0))


if __name__ == "__main__":
    what, count = sys.argv[1], int(sys.argv[2])
    base = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    np.seterr(all="raise", under="ignore")
    globals()[what](count, base)
