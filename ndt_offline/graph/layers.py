"""The choice of layers: what is measured, what is not, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from ndt_offline.errors import UsageError
from ndt_offline.graph.candidates import Candidate, Flow, candidates
from ndt_offline.graph.document import FLOATING, layer_name
from ndt_offline.graph.matrices import Layer, default_rule, layer_matrix, matrix_shape
from ndt_offline.graph.operations import packet
from ndt_offline.graph.program import Graph

MAX_SIDE = 2048
Skipped = list[tuple[str, str]]

__all__ = ["MAX_SIDE", "Layer", "choose_layers", "layer_matrix", "weight_layers"]


def choose_layers(
    graph: Graph,
    patterns: Sequence[str] | None = None,
    shapes: Mapping[str, str] | None = None,
    max_side: int = MAX_SIDE,
) -> tuple[list[Layer], Skipped]:
    """The activations to measure, in order of computation, and (name, reason) of the others.

    Without `patterns`: outputs of the modules that apply a matrix parameter, and of attention.
    `patterns` are globs over module paths (`fc#2` is a second call) and graph nodes (`relu_1`). A
    smaller side above `max_side` is skipped unless a pattern is exactly that name. `shapes`
    overrides the shape rule, {glob: rows | tokens | flatten | channels}. UsageError for a pattern
    that matches nothing.
    """
    flow = Flow(graph.document)
    found = candidates(flow)
    if patterns is not None:
        found = _matched(_catalogue(flow, found), patterns)
    found, skipped = _one_per_tensor(flow, found)
    skipped += _left_out(flow)
    chosen = []
    for candidate in found:
        layer = _layer(flow, candidate, shapes or {})
        named = candidate.name in (patterns or ())
        reason = layer if isinstance(layer, str) else _too_large(layer, max_side, named)
        if isinstance(layer, Layer) and reason is None:
            chosen.append(layer)
        else:
            skipped.append((candidate.name, str(reason)))
    _check_rules_used(shapes or {}, [c.name for c in found] + [c.node for c in found])
    return chosen, skipped


def weight_layers(
    shapes: Mapping[str, tuple[Sequence[int], str]],
    patterns: Sequence[str] | None = None,
    max_side: int = MAX_SIDE,
    tied: Mapping[str, str] | None = None,
    buffers: Collection[str] = (),
) -> tuple[list[Layer], Skipped]:
    """The weights to measure: floating, two or more dimensions, each as [out, rest].

    `shapes` is {name: (shape, dtype)} of a checkpoint; `tied` maps an alias to the name it is
    measured under; `buffers` are names that are no parameters. Vectors and integers are left out
    without a word unless a pattern asks for them.
    """
    names = list(shapes)
    if patterns is not None:
        _check_patterns(patterns, names, "weight")
        names = [name for name in names if _any(name, patterns)]
    chosen: list[Layer] = []
    skipped: Skipped = []
    for name in names:
        named = name in (patterns or ())
        layer = _weight(name, shapes[name], tied or {}, buffers)
        reason = layer if isinstance(layer, str) else _too_large(layer, max_side, named)
        if isinstance(layer, Layer) and reason is None:
            chosen.append(layer)
        elif patterns is not None or not (isinstance(reason, str) and reason in _QUIET):
            skipped.append((name, str(reason)))
    return chosen, skipped


_QUIET = ("it has fewer than two dimensions", "its values are not floating", "it is a buffer")


def _weight(
    name: str,
    entry: tuple[Sequence[int], str],
    tied: Mapping[str, str],
    buffers: Collection[str],
) -> Layer | str:
    shape, dtype = tuple(entry[0]), str(entry[1]).removeprefix("torch.")
    if name in tied and tied[name] != name:
        return f"it is tied to {tied[name]}"
    if dtype.startswith("complex") and len(shape) > 1:
        return "its values are complex, which is not measured"
    if dtype not in FLOATING:
        return "its values are not floating"
    if len(shape) < 2:
        return "it has fewer than two dimensions"
    if name in buffers:
        return "it is a buffer"
    if 0 in shape:
        return "it is empty"
    return Layer(name, name, "weight", "flatten", *matrix_shape(shape, "flatten"))


def _layer(flow: Flow, candidate: Candidate, shapes: Mapping[str, str]) -> Layer | str:
    value = flow.values.get(candidate.node)
    if value is None or not value.floating:
        return "its values are not floating"
    if not value.shape or 0 in value.shape:
        return "it has no dimensions" if not value.shape else "it is empty"
    rule = default_rule(flow.origin(candidate.node), len(value.shape))
    for pattern, given in shapes.items():
        if fnmatchcase(candidate.name, pattern) or fnmatchcase(candidate.node, pattern):
            rule = given
    rows, columns = matrix_shape(value.shape, rule)
    return Layer(candidate.name, candidate.node, candidate.kind, rule, rows, columns)


def _too_large(layer: Layer, max_side: int, named: bool) -> str | None:
    if layer.smaller <= max_side or named:
        return None
    return (
        f"its smaller side, {layer.smaller}, exceeds {max_side}: about {layer.flops:.1e} flops and "
        f"{layer.bytes / 2**20:.0f} MiB a checkpoint; name it exactly to have it measured"
    )


def _catalogue(flow: Flow, found: list[Candidate]) -> list[Candidate]:
    """Everything that has a name: default layers, modules, nodes; a name stands for one thing."""
    entries = {candidate.name: candidate for candidate in found}
    kinds = {candidate.node: candidate.kind for candidate in found}
    for call in flow.document.calls:
        if call.module and call.node in flow.nodes:
            name = layer_name(call.module, call.call)
            entries.setdefault(name, Candidate(name, call.node, _kind(flow, kinds, call.node)))
    for node in flow.document.nodes:
        if not node.many:
            own = Candidate(node.name, node.name, _kind(flow, kinds, node.name))
            entries.setdefault(node.name, own)
    return list(entries.values())


def _kind(flow: Flow, kinds: Mapping[str, str], node: str) -> str:
    return kinds.get(node, packet(flow.nodes[node].op))


def _matched(catalogue: list[Candidate], patterns: Sequence[str]) -> list[Candidate]:
    _check_patterns(patterns, [candidate.name for candidate in catalogue], "layer")
    return [candidate for candidate in catalogue if _any(candidate.name, patterns)]


def _one_per_tensor(flow: Flow, found: list[Candidate]) -> tuple[list[Candidate], Skipped]:
    """One name per tensor, the most specific: `attn.proj` before the `attn` that returns it."""
    position = {node.name: index for index, node in enumerate(flow.document.nodes)}
    best: dict[str, Candidate] = {}
    skipped: dict[str, str] = {}
    for candidate in found:
        other = best.setdefault(candidate.node, candidate)
        if other.name == candidate.name:
            continue
        keep, leave = sorted((other, candidate), key=_specific)
        best[candidate.node] = keep
        skipped[leave.name] = f"the same tensor as {keep.name}"
    chosen = sorted(best.values(), key=lambda candidate: position[candidate.node])
    return chosen, list(skipped.items())


def _specific(candidate: Candidate) -> tuple[bool, int]:
    return candidate.name == candidate.node, -candidate.name.count(".")


def _left_out(flow: Flow) -> Skipped:
    """Modules whose output the exported graph could not hold; notes are only words."""
    noted = flow.document.notes.get("left_out", {})
    items = noted.items() if isinstance(noted, dict) else ()
    return [(str(name)[:500], str(reason)[:500]) for name, reason in items]


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], names: Sequence[str], what: str) -> None:
    for pattern in patterns:
        if not any(_any(name, [pattern]) for name in names):
            raise UsageError(f"no {what} matches {pattern!r}", remedy=_listed(names))


def _check_rules_used(shapes: Mapping[str, str], names: Sequence[str]) -> None:
    for pattern in shapes:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no chosen layer matches {pattern!r}", remedy=_listed(names))


def _listed(names: Sequence[str], most: int = 60) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
