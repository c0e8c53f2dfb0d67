"""What a replay measures: the choice of layers, and the key by which its results are known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import DamagedError, NdtError, UsageError
from ndt_offline.measure.plugin import WHOLE, Measure
from ndt_offline.run.attempt import Problem
from ndt_offline.run.identity import fingerprint, sha256_file
from ndt_offline.run.layout import clashes
from ndt_offline.run.reader import Decoder, Run, recorded_layouts
from ndt_offline.storage.location import locate
from ndt_offline.store.schema import LayerInfo, Space

if TYPE_CHECKING:
    from ndt_offline.graph import Graph
    from ndt_offline.graph.layers import Layer
    from ndt_offline.run.probe import Probe

Chosen = tuple[list["Layer"], list[tuple[str, str]]]
Rules = Mapping[str, str]
Chooser = Callable[[Sequence[str] | None, Rules], Chosen]

MEASURE_VERSION = 3  # raised when the numbers a replay gives change
UPCAST_VERSION = 2  # the same of a replay with `upcast` alone


@dataclass(frozen=True)
class Parameters:
    """What a user may choose about a replay; everything here changes the key."""

    layers: tuple[str, ...] | None = None
    shapes: tuple[tuple[str, str], ...] = ()  # (glob, tokens | flatten | channels)
    center: bool = False
    upcast: bool = False
    max_side: int = 2048
    model: str | None = None
    probe: str | None = None


@dataclass(frozen=True)
class Setup:
    """A prepared replay: plain data, so that it can travel to workers."""

    run: str
    key: int
    loss: str
    parameters: Parameters
    activations: tuple[Layer, ...]
    spaces: tuple[Space, Space]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    flops: float = 0.0  # of one checkpoint: the forward pass, and the spectra
    passing: int = 0  # most bytes of intermediate values that live at one time
    config: str = ""  # config.json of Hugging Face, where the graph is made from it

    def about(self) -> dict[str, Any]:
        """What the store remembers of it, as plain JSON."""
        return {
            "key": f"{self.key:016x}",
            "loss": self.loss,
            "parameters": asdict(self.parameters),
            "skipped": [list(pair) for pair in self.skipped],
            "notes": list(self.notes),
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass
class _Found:
    loss: str
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def setup_key(run: Run, parameters: Parameters) -> int:
    """Identity of a replay from the files' hashes alone: reads no checkpoint, loads no torch."""
    files = [run.path / name for name in ("graph.json", "graph.safetensors")]
    files.append(probe_path(run, parameters))
    if config := config_path(run, parameters):
        files.append(config)
    hashes = [sha256_file(path) if path.is_file() else None for path in files]
    tables = [(p.name, _hash(p)) for p in sorted((run.path / "layouts").glob("*.json"))]
    loss = run.about.get("loss", "none")
    chosen = asdict(parameters) | {"upcast": parameters.upcast and UPCAST_VERSION}
    return fingerprint(MEASURE_VERSION, hashes, tables, loss, chosen)


def _hash(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:  # the checkpoints that need it will say so
        return None


def probe_path(run: Run, parameters: Parameters) -> Path:
    return locate(parameters.probe) if parameters.probe else run.path / "probe.safetensors"


def config_path(run: Run, parameters: Parameters) -> Path | None:
    """The config.json beside the newest checkpoint of others, or above it within the run's folder.

    None where the graph was recorded or comes from `--model`.
    """
    if parameters.model or not run.foreign or not run.entries or not run.entries[-1].path:
        return None
    for folder in (run.entries[-1].path.parent, *run.entries[-1].path.parent.parents):
        if (folder / "config.json").is_file():
            return folder / "config.json"
        if folder == run.path:
            break
    return None


def prepare(run: Run, parameters: Parameters) -> Setup:
    """Choose the layers; what cannot be measured is told, and the rest goes on."""
    from ndt_offline.graph.costs import forward_bytes, forward_flops
    from ndt_offline.graph.layers import choose_layers, weight_layers

    found = _Found(str(run.about.get("loss", "none")))
    graph = _forward(run, parameters, found)
    shapes = _shapes(run)
    rules, side = dict(parameters.shapes), parameters.max_side
    choosers: dict[str, Chooser] = {"weights": lambda globs, _: weight_layers(shapes, globs, side)}
    if graph:
        choosers["activations"] = lambda globs, how: choose_layers(graph, globs, how, side)
    picked = _choose(choosers, parameters.layers, rules)
    chosen, light = picked.get("activations", ([], []))
    weights, heavy = picked["weights"]
    spaces = (_space("activations", chosen), _space("weights", weights))
    forward = forward_flops(graph) if graph and chosen else 0.0
    return Setup(
        str(run.path),
        setup_key(run, parameters),
        found.loss,
        parameters,
        tuple(chosen),
        spaces,
        (*light, *heavy),
        tuple(found.notes),
        tuple(found.problems),
        forward + sum(layer.flops for layer in (*chosen, *weights)),
        forward_bytes(graph) if graph and chosen else 0,
        str(config_path(run, parameters) or ""),
    )


def layers_of(measure: Measure, setup: Setup) -> tuple[str, ...]:
    """The layers that a measure has a row for."""
    if measure.space == "model":
        return (WHOLE,)
    space = setup.spaces[0 if measure.space == "activations" else 1]
    return tuple(layer.name for layer in space.layers)


def load_graph_and_probe(
    run: Path, parameters: Parameters, probe: Path, config: Path | None = None
) -> tuple[Graph, Probe]:
    """The forward pass and its batch, in float32 if `upcast` says so; NdtError if unusable."""
    from ndt_offline.graph import export_graph, load_graph, precision
    from ndt_offline.graph.models import load_factory
    from ndt_offline.graph.pretrained import model_of_config
    from ndt_offline.run.probe import Probe, load_probe

    batch = load_probe(probe)
    if batch is None:
        raise DamagedError("holds no inputs named x", path=probe)
    if parameters.model:
        graph = export_graph(load_factory(parameters.model), batch.inputs)
    elif config:
        graph = export_graph(model_of_config(config), batch.inputs)
    else:
        graph = load_graph(run)
    try:
        graph.check_inputs(batch.inputs)
    except NdtError as error:
        raise error.at(path=probe) from None
    if not parameters.upcast:
        return graph, batch
    wide = precision.upcast(graph)
    return wide, Probe(wide.in_dtypes(batch.inputs), batch.targets)


def _forward(run: Run, parameters: Parameters, found: _Found) -> Graph | None:
    """The graph, or None with the reason noted."""
    from ndt_offline.replay.losses import are_classes
    from ndt_offline.run.probe import load_second

    probe = probe_path(run, parameters)
    if not probe.is_file():
        if parameters.probe:
            raise UsageError("there is no such file", path=probe, remedy="give --probe a file")
        found.notes.append("no probe: weights only; --probe FILE.safetensors (x, y) gives one")
        return None
    config = config_path(run, parameters)
    if not (parameters.model or config or (run.path / "graph.json").is_file()):
        found.notes.append(
            "no forward graph: weights only; --model package.module:factory gives one"
        )
        return None
    try:
        graph, batch = load_graph_and_probe(run.path, parameters, probe, config)
        if why := load_second(probe)[1]:
            found.notes.append(f"the second probe was left out: {why}")
        if run.foreign and are_classes(batch.targets, graph.output.shape):
            found.loss = "cross_entropy"
            found.notes.append("y holds a class for every output: its loss is cross_entropy")
        return graph
    except NdtError as error:
        if parameters.model:
            raise
        what = f"{error.what}; activations were left out"
        remedy = error.remedy or "--probe FILE.safetensors or --model package.module:factory"
        found.problems.append(Problem(what, str(error.path or run.path), remedy=remedy))
        return None


def _shapes(run: Run) -> dict[str, tuple[tuple[int, ...], str]]:
    """{tensor: (shape, dtype)} over every tensor table of the run."""
    tables = recorded_layouts(run)
    if not tables:  # written by others: the first and the last readable one stand for all
        decoder = Decoder(run.path, run.entries)
        for entry in (run.entries[0], run.entries[-1]):
            with contextlib.suppress(NdtError):
                tables.append(decoder.read(entry).layout)
    elif clashes(tables):  # one may be of hidden checkpoints: the last one that is shown counts
        with contextlib.suppress(NdtError):
            tables.insert(0, Decoder(run.path, run.entries).read(run.entries[-1]).layout)
    return {t.name: (t.shape, t.dtype) for table in reversed(tables) for t in table.tensors}


def _choose(
    choosers: dict[str, Chooser], globs: tuple[str, ...] | None, rules: Rules
) -> dict[str, Chosen]:
    """Each glob may name activations, weights or both; one that names neither is a mistake."""
    if globs is None:
        return {space: choose(None, rules) for space, choose in choosers.items()}
    hits: dict[str, list[str]] = {space: [] for space in choosers}
    for glob in globs:
        missed = []
        for space, choose in choosers.items():
            try:
                choose([glob], {})  # a rule may be for what another glob names
                hits[space].append(glob)
            except UsageError as error:
                missed.append(error)
        if len(missed) == len(choosers):
            raise missed[-1]
    return {s: choosers[s](found, rules) if found else ([], []) for s, found in hits.items()}


def _space(name: str, layers: Sequence[Layer]) -> Space:
    return Space(name, tuple(LayerInfo(x.name, x.kind, x.rows, x.columns) for x in layers))
