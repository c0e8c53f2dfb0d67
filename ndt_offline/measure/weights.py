"""The measure of weights: how far and in which direction each layer moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ndt_offline.measure.plugin import Measure, Quantity, View


def motion_of(view: View) -> Mapping[str, float]:
    """Size, direction and reach of one layer's movement; see `MOTION`."""
    now = np.ravel(view.now).astype(np.float64)
    found = {}
    if view.first is not None:
        found["distance"] = _norm(now - np.ravel(view.first))
    if view.before is not None:
        before = np.ravel(view.before).astype(np.float64)
        update = now - before
        size = found["update_norm"] = _norm(update)
        found["relative_update"] = _ratio(size, _norm(before))
        if view.before2 is not None:
            earlier = before - np.ravel(view.before2)
            found["update_cosine"] = _ratio(float(update @ earlier), size * _norm(earlier))
    return found


def _norm(vector: np.ndarray) -> float:
    return float(np.sqrt(vector @ vector))


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else float("nan")


MOTION = Measure(
    name="motion",
    space="weights",
    needs=frozenset({"weights", "previous", "before_previous", "first"}),
    quantities=(
        Quantity("update_norm", "weight", "|w - w_before| (Frobenius), since the step before"),
        Quantity("relative_update", "1", "|w - w_before| / |w_before|"),
        Quantity("distance", "weight", "|w - w_first| from the first recorded step"),
        Quantity("update_cosine", "1", "cosine of this update with the one before, -1 to 1"),
    ),
    compute=motion_of,
    about="How fast each weight moves, and whether it keeps its direction. An update is the "
    "difference between recorded steps, so it depends on how often was recorded; it is not the "
    "size of one optimiser step, and not a gradient.",
    cost=lambda rows, columns: 12.0 * rows * columns,
)
