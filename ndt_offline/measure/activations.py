"""Measures of activations: what a layer makes of the probe, beside its spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ndt_offline.measure.intrinsic import mle_dimension, neighbour_distances, two_nn
from ndt_offline.measure.plugin import Measure, Quantity, View
from ndt_offline.measure.separability import fisher_ratio, ridge_accuracy
from ndt_offline.measure.similarity import hold, similarity
from ndt_offline.measure.units import (
    activation_entropy,
    dead_share,
    saturated_share,
    sparsity,
)

# Operations that are a non-linearity themselves, with the ends between which they saturate.
_AFTER = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0)}
_RECTIFIED = ("relu", "gelu", "silu", "elu", "leaky_relu", "relu6", "softplus", "mish")
_OFF = ("relu", "relu6")  # what is off comes out of these as exactly 0, of no other one
NEIGHBOURS = 20


def similarity_of(view: View, places: Mapping[str, str]) -> Mapping[str, float]:
    """Linear CKA with the same layer at other recorded steps; see `SIMILARITY`."""
    others = {quantity: getattr(view, place) for quantity, place in places.items()}
    return {q: similarity(view.now, other) for q, other in others.items() if other is not None}


def units_of(view: View) -> Mapping[str, float]:
    """Single units of a layer, averaged over them; see `UNITS`."""
    kind = "post" if view.kind in (*_AFTER, *_RECTIFIED) else "pre"
    found = {"activation_entropy": float(activation_entropy(view.now).mean())}
    if kind == "pre" or view.kind in _OFF:
        found |= {
            "dead_share": dead_share(view.now, kind),
            "sparsity": sparsity(view.now, kind),
        }
    if view.kind not in _RECTIFIED:  # they have no flat ends
        bounds = _AFTER.get(view.kind, (-1.0, 1.0))
        found["saturated_share"] = saturated_share(view.now, kind, bounds)
    return found


def dimension_of(view: View) -> Mapping[str, float]:
    """Intrinsic dimension by two estimators; see `DIMENSION`."""
    distances = neighbour_distances(view.now, NEIGHBOURS)
    return {
        "two_nn": two_nn(view.now, distances=distances),
        "mle_dimension": mle_dimension(view.now, NEIGHBOURS, distances=distances),
    }


def separability_of(view: View) -> Mapping[str, float]:
    """How well the classes part; see `SEPARABILITY`."""
    if view.labels is None:
        return {}
    return {
        "ridge_accuracy": ridge_accuracy(view.now, view.labels, samples=view.samples),
        "fisher_ratio": fisher_ratio(view.now, view.labels),
    }


SIMILARITY = Measure(
    name="similarity",
    space="activations",
    needs=frozenset({"activations", "previous", "first"}),
    quantities=(
        Quantity("cka_previous", "1", "linear CKA with the recorded step before, 0 to 1"),
        Quantity("cka_first", "1", "linear CKA with the first recorded step, 0 to 1"),
    ),
    compute=partial(similarity_of, places={"cka_previous": "before", "cka_first": "first"}),
    prepare=hold,
    about="How much of a layer's representation of the probe stays: linear CKA (Kornblith et al. "
    "2019), unchanged by rotation and scale. With few rows against many features even unrelated "
    "representations are similar: compare a layer with itself, not with wider ones.",
    cost=lambda rows, columns: 1.5 * rows * columns * min(rows, columns),
)

SIMILARITY_LAST = Measure(
    name="similarity_last",
    space="activations",
    needs=frozenset({"activations", "last"}),
    quantities=(Quantity("cka_last", "1", "linear CKA with the last recorded step, 0 to 1"),),
    compute=partial(similarity_of, places={"cka_last": "last"}),
    prepare=hold,
    about="How early a layer's representation of the probe is what it ends as. When the run grows, "
    "its last step is another one, and every row is replayed again.",
    cost=lambda rows, columns: 1.0 * rows * columns * min(rows, columns),
)

UNITS = Measure(
    name="units",
    space="activations",
    needs=frozenset({"activations"}),
    quantities=(
        Quantity("activation_entropy", "bits", "mean over units of the entropy of 30 bins"),
        Quantity("dead_share", "1", "share of units that are off for every row of the probe"),
        Quantity("sparsity", "1", "share of entries that are off"),
        Quantity("saturated_share", "1", "share of units in a flat end for 95 % of the rows"),
    ),
    compute=units_of,
    about="Single units over the probe. A layer that is measured before its non-linearity is off "
    "where it is not positive, as a rectifier has it, and saturated beyond 3, as tanh would be. "
    "Measured behind it, relu and relu6 alone say what is off: of gelu, tanh and the like there is "
    "no dead_share and no sparsity. A unit that is dead on the probe may answer to other data.",
    cost=lambda rows, columns: 80.0 * rows * columns,
    version=2,
)

DIMENSION = Measure(
    name="dimension",
    space="activations",
    needs=frozenset({"activations"}),
    quantities=(
        Quantity("two_nn", "dimensions", "TwoNN, from the two nearest neighbours"),
        Quantity("mle_dimension", "dimensions", f"maximum likelihood, {NEIGHBOURS} neighbours"),
    ),
    compute=dimension_of,
    rows=300,
    about="Dimension of the surface that the probe's points lie on, curved or not: not a rank. "
    "TwoNN (Facco et al. 2017) and maximum likelihood (Levina and Bickel 2005); both say too "
    "little above 10 dimensions with a few hundred points, and are refused under 300.",
    cost=lambda rows, columns: 2.6 * rows * rows * (columns + 20),
    params={"neighbours": NEIGHBOURS},
)

SEPARABILITY = Measure(
    name="separability",
    space="activations",
    needs=frozenset({"activations", "labels"}),
    quantities=(
        Quantity("ridge_accuracy", "1", "share right of a 5-fold ridge classifier"),
        Quantity("fisher_ratio", "1", "spread between class means over that within classes"),
    ),
    compute=separability_of,
    about="How well a layer parts the probe's classes. What a linear reader can find there, not "
    "what the next layer uses, and not an accuracy on other data.",
    cost=lambda rows, columns: 3.5 * rows * columns * min(rows, columns),
    version=2,
)
