"""The measure of two probes: loss and accuracy on both, and the gap between them."""

from __future__ import annotations

from collections.abc import Mapping

from ndt_offline.measure.plugin import Measure, Quantity, View


def gap_of(view: View) -> Mapping[str, float]:
    """What was stored of the probes, and two differences; see `GENERALISATION`."""
    known = view.probe or {}
    loss, accuracy = known.get("loss", float("nan")), known.get("accuracy", float("nan"))
    second, right = known.get("loss_val", float("nan")), known.get("accuracy_val", float("nan"))
    return {
        "loss_on_probe": loss,
        "accuracy_on_probe": accuracy,
        "loss_on_second": second,
        "accuracy_on_second": right,
        "loss_gap": second - loss,
        "accuracy_gap": accuracy - right,
    }


GENERALISATION = Measure(
    name="generalisation",
    space="model",
    needs=frozenset({"probe"}),
    quantities=(
        Quantity("loss_on_probe", "loss", "mean loss on the first probe"),
        Quantity("accuracy_on_probe", "1", "share right on the first probe"),
        Quantity("loss_on_second", "loss", "mean loss on the second probe (x_val, y_val)"),
        Quantity("accuracy_on_second", "1", "share right on the second probe"),
        Quantity("loss_gap", "loss", "loss on the second probe minus that on the first"),
        Quantity("accuracy_gap", "1", "accuracy on the first probe minus that on the second"),
    ),
    compute=gap_of,
    about="Loss and accuracy on the probe, on a second one from validation data where one was "
    "recorded, and the gap. Of these samples, in evaluation mode: a gap between two small probes "
    "is as uncertain as they are small, and it is no error on the whole data.",
    cost=lambda rows, columns: 0.0,
)
