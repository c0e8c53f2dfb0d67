"""Which activation belongs to which weight: a layer's output and the parameter that made it."""

from __future__ import annotations

from ndt_offline.store.results import Results


def matched_layers(results: Results) -> list[tuple[str, str]]:
    """(activation, weight) where the weight's module is the activation's, in the store's order.

    `encoder.fc` goes with `encoder.fc.weight`; of several parameters of two dimensions the first.
    """
    activations, weights = ([layer.name for layer in s.layers] for s in results.spaces)
    owners: dict[str, str] = {}
    for name in weights:
        owners.setdefault(name.rpartition(".")[0], name)
    return [(name, owners[name]) for name in activations if name in owners]
