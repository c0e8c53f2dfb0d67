"""Prices: what a measure costs beside the spectra, by shapes alone, and what it needs."""

from __future__ import annotations

from collections.abc import Mapping

from ndt_offline.measure.plugin import Measure
from ndt_offline.replay.setup import Setup
from ndt_offline.store.schema import LayerInfo


def operations(layer: LayerInfo) -> float:
    """Of a spectrum: the Gram matrix, m n k, and its eigenvalues, 4/3 k^3; k the smaller side."""
    smaller = layer.components
    return float(layer.rows) * layer.columns * smaller + 4 / 3 * float(smaller) ** 3


def prices(
    measures: Mapping[str, Measure], setup: Setup, refused: Mapping[str, str]
) -> dict[str, str]:
    """{how it is named: a sentence}: about how many times the spectra's operations, and its needs.

    An estimate from shapes; the machine, and what is memory and not arithmetic, decide.
    """
    spectra = sum(operations(layer) for space in setup.spaces for layer in space.layers)
    lines = {}
    for spec, measure in measures.items():
        needs = ", ".join(sorted(need.replace("_", " ") for need in measure.needs))
        share = cost(measure, setup) / max(spectra, 1.0)
        said = (
            f"refused: {refused[spec]}" if spec in refused else f"about {share:.2g} of the spectra"
        )
        lines[spec] = f"{said}; needs {needs}"
    return lines


def cost(measure: Measure, setup: Setup) -> float:
    """Operations of a measure per checkpoint."""
    activations, weights = (space.layers for space in setup.spaces)
    layers = {"activations": activations, "weights": weights}.get(measure.space, ())
    own = sum(measure.cost(layer.rows, layer.columns) for layer in layers)
    # A pass through a layer multiplies its rows with a weight of as many columns as it gives.
    rows = max((layer.rows for layer in activations), default=0)
    forward = sum(float(rows) * layer.rows * layer.columns for layer in weights)
    return own + measure.passes * forward
