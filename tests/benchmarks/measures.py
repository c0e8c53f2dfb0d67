"""What each measure costs, in units of the spectra's cost, on a recorded run.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
    python tests/benchmarks/measures.py RUN                   every measure, blocks of 64 rows
    python tests/benchmarks/measures.py RUN --rows 16 --only motion,units --repeats 3

CPU time of whole tasks (decode, forward, compute, write), with and without the measure, taken
alternately; the difference over the spectra's time. `alone`: the measure added to a store that has
the spectra already. Nothing is written to the run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ndt_offline.execute.plan import make_plan
from ndt_offline.execute.readiness import make_job, ready_store
from ndt_offline.execute.refusal import refusals
from ndt_offline.measure.catalogue import MEASURES, choose_measures
from ndt_offline.replay.block import BlockRunner
from ndt_offline.replay.mark import Block, space_keys
from ndt_offline.replay.setup import Parameters, prepare, setup_key
from ndt_offline.run.reader import Run, open_run
from ndt_offline.store.measures import measure_groups
from ndt_offline.store.schema import open_root


class Task:
    """One block of a run with some measures, ready to be run again and again."""

    def __init__(self, run: Run, folder: Path, measures: tuple[str, ...], rows: int) -> None:
        parameters, chosen = Parameters(), choose_measures(measures)
        setup = prepare(run, parameters)
        self.refused = refusals(chosen, setup, run)
        fit = {name: m for name, m in chosen.items() if name not in self.refused}
        self.store = folder / ("-".join(measures) or "spectra")
        plan = make_plan(run, self.store, setup_key(run, parameters), space_keys(setup), fit)
        job = make_job(setup, self.store, measures=plan.measures)
        ready_store(job, plan)
        # From the middle of the run, so that every row has others behind it.
        start = plan.blocks[len(plan.blocks) // 2].start
        whole = range(start, start + rows)
        self.block = Block.of(run.entries, start, start + rows, whole, ends=True)
        # One process takes block after block: the rows shortly before are still in its memory.
        self.before = Block.of(run.entries, start - 2, start, range(start - 2, start), ends=True)
        self.runner = BlockRunner(job)
        self.rows = rows

    def seconds(self, spectra: bool = True) -> float:
        """CPU seconds per row, with the spectra done anew or left as they stand."""
        root = open_root(self.store)
        span = slice(self.before.start, self.block.stop)
        if spectra:
            root["records/spectra"][span] = 0
            root["records/measured"][span] = 0
        for _, group in measure_groups(root):
            group["mark"][span] = 0
        self.runner(self.before)
        started = time.process_time()
        self.runner(self.block)
        return (time.process_time() - started) / self.rows


def compare(run: Run, names: tuple[str, ...], rows: int, repeats: int) -> Iterator[str]:
    """A line per measure: milliseconds beside the spectra, and both ratios."""
    with tempfile.TemporaryDirectory(prefix="ndt-") as folder:
        plain = Task(run, Path(folder), (), rows)
        plain.seconds()
        for name in names:
            task = Task(run, Path(folder), tuple(name.split("+")), rows)
            if task.refused:
                yield f"{name:<18} refused: {task.refused}"
                continue
            task.seconds()
            times = np.array(
                [(plain.seconds(), task.seconds(), task.seconds(False)) for _ in range(repeats)]
            )
            spectra, both, alone = np.median(times, axis=0)
            added = float(np.median((times[:, 1] - times[:, 0]) / times[:, 0]))
            yield (
                f"{name:<18} spectra {1e3 * spectra:6.2f} ms, with it {1e3 * both:7.2f} ms: "
                f"{added:5.2f} of the spectra; alone {alone / spectra:5.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(MEASURES), help="names; a+b for both together")
    given = parser.parse_args()
    for line in compare(open_run(given.run), given.only.split(","), given.rows, given.repeats):
        print(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
