"""The stage about sampling rates: what is found when fewer of the stored points are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from ndt_offline.detect.rates import EVERY, join_rates, rates_of
from ndt_offline.execute.sources import series_key, source_key
from ndt_offline.store.results import SPACES, Results
from ndt_offline.store.tables import key_of, stage_of


def put_rates(
    results: Results,
    metric: str,
    detector: str = "steps",
    every: Sequence[int] = EVERY,
    draws: int = 3,
    seed: int = 0,
    **params: Any,
) -> zarr.Group:
    """Transitions per sampling interval, summed over every layer's series of one metric."""
    key = key_of(
        source_key("detect"), results.content_key(), metric, detector, tuple(every), draws, seed,
        sorted(params.items()),
    )  # fmt: skip

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [
            column
            for name, space in zip(SPACES, results.spaces, strict=True)
            if space.layers
            for column in results.metric(name, metric).T
        ]
        with np.errstate(all="ignore"):
            rates = join_rates(
                rates_of(row, results.steps, detector, every, draws, (seed, i), **params)
                for i, row in enumerate(rows)
            )
        columns = {name: getattr(rates, name) for name in _COLUMNS}
        columns["remark"] = np.array(rates.remarks, object)
        about = {"metric": metric, "detector": detector, "draws": draws, "seed": seed}
        about |= {"parameters": params, "spectra": series_key(results)}
        return {"rates": (("rate",), columns)}, about

    group = stage_of(results.root["derived"], "rates", key, make)
    newest = dict(results.root.attrs.get("newest", {}))
    results.say(newest=newest | {"rates": group.basename})
    return group


_COLUMNS = ("every", "points", "found", "spread", "matched")
