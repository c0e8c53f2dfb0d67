"""Couplings, phases and the words for them: pure functions of arrays.

A series is one number of one layer over the training steps; a target is the loss or the gradient
norm over the same steps. Start with `correlate` and `fit_phases`; `layer_words` says in one line
what they found.
"""

from __future__ import annotations

from ndt_offline.relate.battery import TrialCell, relate_battery
from ndt_offline.relate.couplings import (
    STATUS,
    Coupling,
    correlate,
    coupling_records,
    couplings_table,
)
from ndt_offline.relate.phase import Phase, PhaseFit, phases_table
from ndt_offline.relate.phases import fit_phases
from ndt_offline.relate.runs import PooledCoupling, across_runs
from ndt_offline.relate.words import coupling_words, layer_words, phase_words, trend_words

__all__ = [
    "STATUS",
    "Coupling",
    "Phase",
    "PhaseFit",
    "PooledCoupling",
    "TrialCell",
    "across_runs",
    "correlate",
    "coupling_records",
    "coupling_words",
    "couplings_table",
    "fit_phases",
    "layer_words",
    "phase_words",
    "phases_table",
    "relate_battery",
    "trend_words",
]
