"""Couplings, phases and the words for them: pure functions of arrays."""

from __future__ import annotations

from ndt_offline.relate.couplings import (
    STATUS,
    Coupling,
    correlate,
    coupling_records,
    couplings_table,
)
from ndt_offline.relate.phase import Phase, PhaseFit
from ndt_offline.relate.phases import fit_phases

__all__ = [
    "STATUS",
    "Coupling",
    "Phase",
    "PhaseFit",
    "correlate",
    "coupling_records",
    "couplings_table",
    "fit_phases",
]
