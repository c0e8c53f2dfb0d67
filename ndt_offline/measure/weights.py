"""Measures of weights: how far and in which direction each layer moves."""

from __future__ import annotations

from collections.abc import Mapping

from ndt_offline.measure.motion import effective_rate, motion, update_norm
from ndt_offline.measure.plugin import Measure, Quantity, View


def motion_of(view: View) -> Mapping[str, float]:
    """The movement of one weight; see `MOTION`."""
    if view.before is not None:
        return vars(motion(view.now, view.before, view.before2, view.first))
    return {} if view.first is None else {"distance": update_norm(view.now, view.first)}


def rate_of(view: View) -> Mapping[str, float]:
    """The length of an average update per unit of probe gradient; see `LEARNING_RATE`."""
    if view.before is None or view.gradients is None or not view.updates:
        return {}
    size, slope = update_norm(view.now, view.before), view.gradients["norm"]
    return {"effective_rate": effective_rate(size, slope, view.updates)}


MOTION = Measure(
    name="motion",
    space="weights",
    needs=frozenset({"weights", "previous", "before_previous", "first"}),
    quantities=(
        Quantity("update_norm", "weight", "|w - w_before| (Frobenius) since the step before"),
        Quantity("relative_update", "1", "|w - w_before| / |w_before|"),
        Quantity("distance", "weight", "|w - w_first| from the first recorded step"),
        Quantity("update_cosine", "1", "cosine of this update with the one before, -1 to 1"),
    ),
    compute=motion_of,
    about="How fast each weight moves, how far it has come, and whether it keeps its direction. "
    "An update is the difference of two recorded steps, so it depends on how often was recorded: "
    "it is not one step of the optimiser, and not a gradient.",
    cost=lambda rows, columns: 70.0 * rows * columns,
)

LEARNING_RATE = Measure(
    name="learning_rate",
    space="weights",
    needs=frozenset({"weights", "previous", "gradients"}),
    quantities=(Quantity("effective_rate", "1", "|w - w_before| / (updates |probe gradient|)"),),
    compute=rate_of,
    about="The effective learning rate of each layer: the length of an average update for each "
    "unit of probe gradient, as it is after these updates. It is the learning rate, up to what "
    "the gradient changed meanwhile, only for plain gradient descent on the probe; otherwise it is "
    "what momentum, adaptive scaling and other batches make of it.",
    cost=lambda rows, columns: 30.0 * rows * columns,
    passes=1.6,
    version=2,
)
