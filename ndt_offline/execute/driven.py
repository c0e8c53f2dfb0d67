"""Measures of what is stored already: computed by the driver, without a replay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ndt_offline.execute.standing import measure_keys
from ndt_offline.measure.plugin import WHOLE, Measure, View
from ndt_offline.replay.ledger import NOTHING
from ndt_offline.store.measures import GROUP, create_measure, key_of_measure
from ndt_offline.store.results import Results
from ndt_offline.store.schema import QUANTITIES, forget_consolidated


def is_driven(measure: Measure) -> bool:
    """Whether it looks only at what the store holds."""
    return "probe" in measure.needs


def put_driven(results: Results, asked: Mapping[str, Measure]) -> None:
    """Bring these measures to the store's rows; what stands is not written again."""
    chosen = {spec: measure for spec, measure in asked.items() if is_driven(measure)}
    spaces = results.attrs.get("spaces", {})
    keys = measure_keys(chosen, spaces)
    for spec, measure in chosen.items():
        if key_of_measure(results.root, measure.name) != keys[spec]:
            results.check_owner()
            forget_consolidated(results.path)
            create_measure(
                results.root,
                measure.name,
                (WHOLE,),
                {quantity.name: quantity.unit for quantity in measure.quantities},
                about=measure.about,
                meanings={quantity.name: quantity.about for quantity in measure.quantities},
                space=measure.space,
                depends={"activations": spaces.get("activations")},
                own=":" in spec,
                key=keys[spec],
            )
        group = results.root[f"{GROUP}/{measure.name}"]
        values = _values(results, measure)
        marked = np.array_equal(group["mark"][:], results.fingerprints)
        if not (marked and np.array_equal(group["values"][:], values, equal_nan=True)):
            nothing = ~np.isfinite(values).any(axis=(1, 2))
            group["values"][:] = values
            group["problem"][:] = np.where(nothing, NOTHING, "").astype(object)
            group["mark"][:] = results.fingerprints


def _values(results: Results, measure: Measure) -> np.ndarray:
    """[step, 1, quantity]."""
    known = {name: results.signal(f"probe_{name}").tolist() for name in QUANTITIES}
    rows = []
    for row in range(len(results.steps)):
        view = View(WHOLE, probe={name: values[row] for name, values in known.items()})
        found = measure.compute(view)
        rows.append([[found.get(name, np.nan) for name in measure.names]])
    return np.array(rows, np.float64).reshape(len(results.steps), 1, len(measure.names))
