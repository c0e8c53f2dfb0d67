"""Refusals: measures that cannot be computed of a run, each with its reason. The others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from ndt_offline.errors import NdtError
from ndt_offline.measure.plugin import FORWARD, Measure, missing
from ndt_offline.replay.setup import Setup, layers_of
from ndt_offline.run.reader import Decoder, Run

FITS = {"cross_entropy", "nll", "mse", "l1", "bce_with_logits"}  # losses with a gradient per sample


def refusals(measures: Mapping[str, Measure], setup: Setup, run: Run) -> dict[str, str]:
    """{how it is named: why} of the measures that this run cannot give."""
    apart = cache(lambda: _gradients(setup, run))  # it takes forward passes
    reasons = {spec: _reason(measure, setup, run, apart) for spec, measure in measures.items()}
    return {spec: reason for spec, reason in reasons.items() if reason}


def _reason(measure: Measure, setup: Setup, run: Run, apart: Callable[[], str]) -> str:
    if measure.needs & FORWARD and not setup.activations:
        return next(iter(setup.notes), "there is no layer of activations")
    if not layers_of(measure, setup):
        return f"there is no layer of {measure.space}"
    sizes = _sizes(measure, setup)
    if sizes and all(missing(measure, rows) for _, rows in sizes):
        return missing(measure, max(rows for _, rows in sizes))
    if "labels" in measure.needs:
        from ndt_offline.replay.labels import Labels

        labels = Labels(run, setup)
        if all(labels(rows)[0] is None for _, rows in sizes):
            return "the probe has no label for each row of a layer"
    if measure.needs & {"gradients", "curvature"} and setup.loss not in FITS:
        return f"the loss was recorded as {setup.loss!r}, which has no gradient"
    # The Hessian is of the mean loss: it does not ask whose part of it is whose.
    return apart() if "gradients" in measure.needs else ""


def _gradients(setup: Setup, run: Run) -> str:
    """Why gradients of single samples cannot be had of this graph and probe, or nothing."""
    from ndt_offline.replay.numbers import Numbers
    from ndt_offline.run.tensors import to_torch

    decoder, numbers = Decoder(run.path, run.entries), Numbers(run, setup)
    for entry in run.entries:
        try:
            decoded = decoder.read(entry)
        except NdtError:
            continue  # its row will say so
        try:
            numbers.maker(to_torch(decoded.layout, decoded.vectors))
        except NdtError as error:
            return error.what
        return ""
    return ""  # none can be read: each row will say so, and be tried again when its file changes


def _sizes(measure: Measure, setup: Setup) -> list[tuple[str, int]]:
    layers = setup.spaces[0].layers if measure.space == "activations" else ()
    return [(layer.name, layer.rows) for layer in layers]
