"""Measures of the loss around the weights: gradients of the probe's samples, and curvature."""

from __future__ import annotations

from collections.abc import Mapping

from ndt_offline.measure.plugin import Measure, Quantity, View

NOT_TRAINING = (
    "The model is in evaluation mode (BatchNorm by its running statistics, no dropout), and the "
    "samples are the probe's: it is not the gradient, or the noise, of the training batches."
)


def gradients_of(view: View) -> Mapping[str, float]:
    """One weight's gradients over the probe; see `GRADIENTS`."""
    known = {
        "probe_gradient": "norm",
        "gradient_variance": "variance",
        "signal_to_noise": "signal_to_noise",
        "gradient_alignment": "alignment",
    }
    return _named(view.gradients, known)


def noise_scale_of(view: View) -> Mapping[str, float]:
    """The gradients of the whole model over the probe; see `NOISE_SCALE`."""
    known = {
        "model_gradient": "norm",
        "noise_scale": "noise_scale",
        "noise_scale_error": "noise_scale_error",
        "model_alignment": "alignment",
    }
    return _named(view.gradients, known)


GRADIENTS = Measure(
    name="gradients",
    space="weights",
    needs=frozenset({"gradients"}),
    quantities=(
        Quantity("probe_gradient", "loss / weight", "norm of the gradient of the probe's loss"),
        Quantity("gradient_variance", "(loss / weight)^2", "tr S over the samples, unbiased"),
        Quantity("signal_to_noise", "1", "|G|^2 / tr S of one sample; may be negative"),
        Quantity("gradient_alignment", "1", "mean cosine of two samples' gradients"),
    ),
    compute=gradients_of,
    about="How strong and how common each layer's gradient is over the samples. " + NOT_TRAINING,
    cost=lambda rows, columns: 0.0,
    passes=1.6,
    version=2,
)

NOISE_SCALE = Measure(
    name="noise_scale",
    space="model",
    needs=frozenset({"gradients"}),
    quantities=(
        Quantity("model_gradient", "loss / weight", "norm of the gradient of the probe's loss"),
        Quantity("noise_scale", "samples", "tr S / |G|^2, of unbiased estimates"),
        Quantity("noise_scale_error", "samples", "its standard error over the probe's samples"),
        Quantity("model_alignment", "1", "mean cosine of two samples' gradients"),
    ),
    compute=noise_scale_of,
    about="The simple gradient noise scale (McCandlish et al. 2018), which predicts the critical "
    "batch size: beyond as many samples a larger batch saves few updates. Where its error "
    "is of its own size the probe is too small to tell it, and NaN where it sees no gradient. "
    + NOT_TRAINING,
    cost=lambda rows, columns: 0.0,
    passes=1.6,
    version=2,
)


def curvature_of(view: View) -> Mapping[str, float]:
    """The sharpest direction of the probe's loss; see `CURVATURE`."""
    known = {
        "top_eigenvalue": "value",
        "eigenvalue_residual": "residual",
        "gradient_in_top": "alignment",
    }
    return _named(view.curvature, known)


def _named(numbers: Mapping[str, float] | None, known: Mapping[str, str]) -> Mapping[str, float]:
    """known: {quantity: what the replay calls it}; nothing where there are no numbers."""
    return {} if numbers is None else {name: numbers[key] for name, key in known.items()}


CURVATURE = Measure(
    name="curvature",
    space="model",
    needs=frozenset({"curvature"}),
    quantities=(
        Quantity("top_eigenvalue", "loss / weight^2", "largest eigenvalue of the Hessian"),
        Quantity("eigenvalue_residual", "1", "|H v - l v| / |l|: how far from an eigenvector"),
        Quantity("gradient_in_top", "1", "share of the gradient's square in that direction"),
    ),
    compute=curvature_of,
    about="The sharpness of the probe's loss: the largest eigenvalue of its Hessian in all "
    "parameters, by Lanczos' method, started from the eigenvector of the step before. "
    "It is neither a trace nor a flatness of the minimum. " + NOT_TRAINING,
    cost=lambda rows, columns: 0.0,
    passes=4.5,
    version=2,
)
