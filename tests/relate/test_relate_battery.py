"""The p keeps its level on independent pairs of every kind and finds the coupled ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ndt_offline.relate.battery import coupled_cell, null_cell, relate_battery
from ndt_offline.relate.cells import COUPLED, LAGGED, NULLS

FULL = bool(os.environ.get("NDT_SLOW"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_false_positives(name: str) -> None:
    cell = null_cell(name, 1000 if FULL else 60, 1600, seed=20)
    # Reduced: a true rate of .05 gives 10 or more of 60 once in a thousand runs, .01 five or more.
    assert cell.at_5 <= (0.07 if FULL else 9 / 60)
    assert cell.at_1 <= (0.015 if FULL else 4 / 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COUPLED, *LAGGED])
def test_power(name: str) -> None:
    cell = coupled_cell(name, 200 if FULL else 20, 1600, seed=21)
    assert cell.verdict >= 0.95


def test_a_cell_does_not_depend_on_the_others() -> None:
    cells = relate_battery(10, n=200, seed=3)
    assert [c.name for c in cells] == [*NULLS, *COUPLED, *LAGGED]
    assert cells[2] == null_cell("AR(1) .9", 10, 200, 3)


def test_importing_loads_no_scipy() -> None:
    code = "import sys, ndt_offline.relate; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_scipy_stats_at_run_time() -> None:
    code = (
        "import sys, numpy as np; from ndt_offline.relate import correlate, fit_phases;"
        "x = np.random.default_rng(0).normal(size=(2, 300)); correlate(x, x[:1]);"
        "fit_phases(x, draws=19); sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
