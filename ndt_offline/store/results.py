"""A store, read: series by layer and metric, signals, and the answers derived from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ndt_offline.errors import DamagedError, UsageError
from ndt_offline.storage.location import locate
from ndt_offline.store.measures import GROUP, measure_groups
from ndt_offline.store.ownership import check_owner, write_attributes
from ndt_offline.store.schema import OUTCOME, STATUS, LayerInfo, Space, open_root

SPACES = ("activations", "weights")
WHOLE = LayerInfo("whole", "model", 0, 0)  # what a measure of the model as a whole is a number of
ASKED = "asked"  # attribute of the root: the measures of the newest question
PROBE = "probe_"  # before the quantities of the probe among the signals
OWN_SIGNALS = ("step", "quantity", "probe")  # arrays that are no journal scalar


@dataclass(frozen=True)
class SeriesId:
    """Where a series comes from."""

    space: str
    layer: str
    metric: str

    def __str__(self) -> str:
        return f"{self.space}/{self.layer}/{self.metric}"


def names_of(ids: tuple[SeriesId, ...]) -> dict[str, np.ndarray]:
    """The three columns that say which series a row of a table is of."""
    keys = ("space", "layer", "metric")
    return {key: np.array([getattr(i, key) for i in ids], dtype=object) for key in keys}


def damaged(store: Path, error: Exception) -> DamagedError:
    """What to say of a store that cannot be read. Nothing in it is lost for good."""
    said = str(error).splitlines()[0] if str(error) else ""
    return DamagedError(
        f"the store cannot be read ({type(error).__name__}: {said[:200]})",
        path=store,
        remedy=f"delete {store} and run again: all of it is computed from the checkpoints",
    )


class Results:
    """Reads a store that `analyze` made. Raises UsageError where there is none.

    token: of the analysis that the store belongs to, where it is to be written as well.
    """

    def __init__(self, path: str | Path, token: str | None = None) -> None:
        self.path, self._token = locate(path), token
        self._cache: dict[tuple[str, str], np.ndarray] = {}
        try:
            self.root = open_root(self.path)
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            if (self.path / "zarr.json").is_file():
                raise damaged(self.path, error) from None
            raise UsageError(
                "holds no analysis", path=self.path, remedy=f"ndt-analyze {self.path.parent}"
            ) from None

    @property
    def attrs(self) -> dict[str, Any]:
        return dict(self.root.attrs)

    def check_owner(self) -> None:
        """Raise NdtError where the store belongs to another analysis by now."""
        check_owner(self.path, self._token)

    def say(self, **attributes: Any) -> None:
        """Set attributes of the root, and no others; NdtError where it is another's by now."""
        write_attributes(self.root, self.path, attributes, self._token)
        if ASKED in attributes:
            self.__dict__.pop("quantities", None)
            self._cache.clear()

    @cached_property
    def steps(self) -> np.ndarray:
        return np.asarray(self.root["records/step"][:])

    @cached_property
    def fingerprints(self) -> np.ndarray:
        return np.asarray(self.root["records/spectra"][:])

    @cached_property
    def outcomes(self) -> np.ndarray:
        return np.asarray(self.root["records/outcome"][:])

    @property
    def usable(self) -> np.ndarray:
        """Rows whose checkpoint was read and measured."""
        return self.outcomes == OUTCOME["ok"]

    def unusable(self) -> list[tuple[int, str]]:
        """(step, why) of every row that could not be fully measured."""
        rows = np.flatnonzero((self.outcomes != OUTCOME["ok"]) & (self.fingerprints != 0))
        problems = self.root["records/problem"][:] if len(rows) else []
        return [(int(self.steps[row]), str(problems[row])) for row in rows]

    def space(self, name: str) -> Space:
        group = self.root[name]
        columns = (group[key][:].tolist() for key in ("layer", "kind", "rows", "columns"))
        infos = zip(*columns, strict=True) if group["layer"].shape[0] else ()
        return Space(name, tuple(LayerInfo(str(a), str(b), c, d) for a, b, c, d in infos))

    @cached_property
    def spaces(self) -> tuple[Space, Space]:
        return self.space("activations"), self.space("weights")

    def spectra(self, space: str, rows: slice = slice(None)) -> np.ndarray:
        """Singular values [step, layer, component], NaN-padded."""
        return np.asarray(self.root[f"{space}/singular_values"][rows])

    def metric(self, space: str, metric: str) -> np.ndarray:
        """The series [step, layer] of a metric, or of a quantity that a measure returns."""
        if (space, metric) in self.quantities:
            name, index = self.quantities[space, metric]
            return self.measured(name)[:, :, index]
        return np.asarray(self.root[f"{space}/{metric}"][:])

    def measured(self, name: str) -> np.ndarray:
        """What a measure gave [step, layer, quantity], NaN where it gave nothing."""
        if ("", name) not in self._cache:
            self._cache["", name] = np.asarray(self.root[f"{GROUP}/{name}/values"][:])
        return self._cache["", name]

    @cached_property
    def measures(self) -> dict[str, Any]:
        """The finished groups of measures, by name."""
        return {n: g for n, g in measure_groups(self.root) if g.attrs.get("key")}

    @cached_property
    def quantities(self) -> dict[tuple[str, str], tuple[str, int]]:
        """{(space, quantity): (measure, its place)} of all measures.

        Of two with one quantity, the one that was asked for last.
        """
        asked = self.root.attrs.get(ASKED, ())
        return {
            (str(group.attrs["space"]), str(quantity)): (name, index)
            for name, group in sorted(self.measures.items(), key=lambda pair: pair[0] in asked)
            for index, quantity in enumerate(group["quantity"][:].tolist())
        }

    def layers(self, space: str) -> tuple[LayerInfo, ...]:
        """The layers of a space; `model` has one, the whole."""
        if space == WHOLE.kind:
            return (WHOLE,)
        return self.spaces[SPACES.index(space)].layers

    def unmeasured(self, name: str) -> list[tuple[int, str]]:
        """(step, why) of every row that a measure could not, or not fully, be computed for."""
        problems = np.asarray(self.root[f"{GROUP}/{name}/problem"][:], object)
        return [
            (int(self.steps[row]), str(problems[row])) for row in np.flatnonzero(problems != "")
        ]

    def signal(self, name: str) -> np.ndarray:
        """A journal scalar or, with `probe_` before it, a quantity of the probe: [step].

        NaN where the run has no such signal.
        """
        signals = self.root["signals"]
        if name.startswith(PROBE):
            quantities = signals["quantity"][:].tolist()
            if name.removeprefix(PROBE) in quantities:
                at = quantities.index(name.removeprefix(PROBE))
                return np.asarray(signals["probe"][:, at])
        if name.startswith(PROBE) or name in OWN_SIGNALS or name not in signals:
            return np.full(len(self.steps), np.nan)
        return np.asarray(signals[name][:])

    def metric_names(self, space: str) -> list[str]:
        """The metrics that were derived from this space's spectra."""
        known = self.root[space] if space in SPACES else {}
        names = [name for name in known if known[name].attrs.get("spectra") is not None]
        return names + [quantity for where, quantity in self.quantities if where == space]

    @property
    def signal_names(self) -> list[str]:
        """What `signal` knows: journal scalars, and `probe_` quantities."""
        signals = self.root["signals"]
        own = [name for name in signals if name not in OWN_SIGNALS]
        return sorted(own) + [f"{PROBE}{name}" for name in signals["quantity"][:].tolist()]

    def broken(self, space: str) -> np.ndarray:
        """Where a layer had NaN or infinite entries: [step, layer]."""
        return np.asarray(self.root[f"{space}/status"][:] == STATUS["not_finite"])

    def content_key(self, measures: tuple[str, ...] = ()) -> str:
        """Identity of all that the spectra and these measures say: changes when any row does."""
        digest = hashlib.blake2b(digest_size=8)
        marks = [np.asarray(self.measures[name]["mark"][:]) for name in measures]
        for array in (self.steps, self.fingerprints, self.outcomes, *marks):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("".join(measures).encode())
        return digest.hexdigest()

    def series(self, space: str, layer: str, metric: str) -> np.ndarray:
        """One metric of one layer over the steps: [step]."""
        return self._metrics(space, metric)[:, self._layer_index[space][layer]]

    def answer(self, stage: str) -> zarr.Group | None:
        """The group of `derived/` that answers the newest question, by stage."""
        name = self.root.attrs.get("newest", {}).get(stage)
        derived = self.root["derived"]
        return derived[name] if name is not None and name in derived else None

    @cached_property
    def _layer_index(self) -> dict[str, dict[str, int]]:
        spaces = (*SPACES, WHOLE.kind)
        return {s: {x.name: i for i, x in enumerate(self.layers(s))} for s in spaces}

    def _metrics(self, space: str, metric: str) -> np.ndarray:
        if (space, metric) not in self._cache:
            self._cache[space, metric] = self.metric(space, metric)
        return self._cache[space, metric]
