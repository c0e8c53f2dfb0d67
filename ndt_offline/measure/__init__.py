"""Metrics: one number from one spectrum."""

from ndt_offline.measure.metrics import METRICS

__all__ = ["METRICS"]
