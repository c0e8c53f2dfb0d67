"""Couplings, phases and the words for them: pure functions of arrays."""

from __future__ import annotations

from ndt_offline.relate.couplings import (
    STATUS,
    Coupling,
    correlate,
    coupling_records,
    couplings_table,
)

__all__ = ["STATUS", "Coupling", "correlate", "coupling_records", "couplings_table"]
