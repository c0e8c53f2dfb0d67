"""A graph that can be run: the recorded forward pass on the weights of any checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.graph.document import Document, Slot, Value, fingerprint
from ndt_offline.graph.guards import check_memory, check_shapes
from ndt_offline.graph.inputs import flatten
from ndt_offline.graph.steps import Step, make_steps
from ndt_offline.graph.storage import save_graph

if TYPE_CHECKING:
    import torch

Visit = Callable[[str, "torch.Tensor"], None]


class Graph:
    """The forward pass of one model for one probe shape.

    Made by `export_graph` or `load_graph`. `inputs` and `parameters` say what it needs:
    {name: Value(dtype, shape)}. It is not the model: no training mode, no dropout, no hooks, and
    only the recorded batch shape.
    """

    def __init__(
        self,
        document: Document,
        constants: Callable[[], dict[str, torch.Tensor]] = dict,
        cast: bool = False,
    ) -> None:
        self.document = document
        self._cast = cast
        self._read_constants = constants
        self._constants: dict[str, dict[str, torch.Tensor]] = {}
        self._plans: dict[frozenset[str] | None, list[Step]] = {}
        self._checked = False

    @property
    def fingerprint(self) -> str:
        """SHA-256 over operations, shapes, names and constants; notes do not count."""
        return fingerprint(self.document)

    @property
    def inputs(self) -> dict[str, Value]:
        """What the probe must hold: `x`, or `x.0`, `x.1`, or `x.input_ids`, ..."""
        return {slot.key: slot.value for slot in self.document.inputs}

    @property
    def parameters(self) -> dict[str, Value]:
        """What the state dict must hold; a tied tensor stands under one of its names."""
        return {slot.key: slot.value for slot in self.document.parameters}

    @property
    def buffers(self) -> set[str]:
        """Names in the state dict that are buffers, not parameters."""
        slots = [slot for slot in self.document.parameters if slot.buffer]
        return {name for slot in slots for name in (slot.key, *slot.aliases)}

    @property
    def output(self) -> Value:
        """Dtype and shape of what `run` returns."""
        known = {slot.name: slot.value for slot in self.document.slots()}
        known |= {node.name: node.value for node in self.document.nodes if node.value}
        return known[self.document.output]

    @property
    def difference(self) -> float | None:
        """Largest |graph - model| over the output's scale when it was exported, if compared."""
        value = self.document.notes.get("difference")
        return float(value) if isinstance(value, (int, float, str)) else None

    def with_document(self, document: Document, cast: bool) -> Graph:
        """Another document on the same constants; `cast` brings tensors to the dtypes it names."""
        return Graph(document, self._read_constants, cast)

    def save(self, folder: str | Path) -> None:
        """Write graph.json, and graph.safetensors where there are constants, into `folder`."""
        save_graph(self.document, self._read_constants(), Path(folder))

    def check_inputs(self, inputs: Any) -> None:
        """UsageError where a probe does not fit: names, dtypes and shapes, batch size included."""
        self._bound_inputs(inputs)

    def in_dtypes(self, inputs: Any) -> dict[str, torch.Tensor]:
        """A probe's tensors by name, in the dtypes that the graph computes with."""
        bound = self._bound_inputs(inputs)
        return {slot.key: bound[slot.name] for slot in self.document.inputs}

    def check_state(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """UsageError where a checkpoint with these {name: shape} does not fit the graph."""
        for slot in self.document.parameters:
            _check_shape(slot, shapes[_present(slot, shapes)])

    def check(self) -> None:
        """RefusedError where a recorded shape is not what its operation gives, or memory is short.

        Runs nothing but shape rules. `run` does it once by itself.
        """
        if not self._checked:
            steps = make_steps(self.document, None)
            check_memory(self.document)
            check_shapes(self.document, steps)
            self._checked = True

    def run(
        self,
        state: Mapping[str, torch.Tensor],
        inputs: Any,
        visit: Visit | None = None,
        nodes: Collection[str] | None = None,
    ) -> torch.Tensor:
        """The model's output for the weights in `state`.

        `state` holds tensors by state-dict name, all on one device; `inputs` is the probe as it was
        exported, or a dict by input name. `visit(node, tensor)` is called for every node in `nodes`
        (None: all) as soon as it is computed; a tensor nobody reads any more is freed at once, so
        keep a copy of what you need. Computes in the dtypes of `state`.
        """
        self.check()
        wanted = frozenset(nodes or ()) if visit is None or nodes is not None else None
        steps = self._plan(wanted)
        values = self.bind(state, inputs)
        device = next((v.device for v in values.values()), None)
        seen = visit if visit is not None else _nothing
        for step in steps:
            values[step.name] = result = _call(step, values, device)
            if (wanted is None or step.name in wanted) and hasattr(result, "shape"):
                seen(step.name, result)
            del result
            for name in step.frees:
                del values[name]
        return values[self.document.output]

    def _plan(self, wanted: frozenset[str] | None) -> list[Step]:
        if wanted not in self._plans:
            unknown = sorted((wanted or set()) - {node.name for node in self.document.nodes})
            if unknown:
                raise UsageError(f"the graph has no node {', '.join(unknown)}")
            self._plans[wanted] = make_steps(self.document, wanted)
        return self._plans[wanted]

    def bind(self, state: Mapping[str, torch.Tensor], inputs: Any) -> dict[str, Any]:
        """What the first node finds: inputs, weights and constants by their names in the graph."""
        values: dict[str, Any] = dict(self._bound_inputs(inputs))
        for slot in self.document.parameters:
            tensor = state[_present(slot, state)]
            _check_shape(slot, tensor.shape)
            values[slot.name] = self._in_dtype(slot, tensor)
        if self.document.constants:
            device = next(iter(values.values())).device if values else "cpu"
            values |= self._constants_on(device)
        return values

    def _bound_inputs(self, inputs: Any) -> dict[str, Any]:
        given = flatten(inputs, self.inputs)
        missing = sorted(set(self.inputs) - set(given))
        extra = sorted(set(given) - set(self.inputs))
        if missing or extra:
            raise UsageError(
                f"the probe holds {', '.join(sorted(given))}; "
                f"the graph was recorded with {', '.join(sorted(self.inputs))}",
                remedy="the probe that was recorded with the graph",
            )
        bound = {s.name: self._in_dtype(s, given[s.key]) for s in self.document.inputs}
        for slot in self.document.inputs:
            _check_input(slot, bound[slot.name])
        return bound

    def _in_dtype(self, slot: Slot, tensor: Any) -> Any:
        if not self._cast or not tensor.dtype.is_floating_point:
            return tensor
        import torch

        return tensor.to(getattr(torch, slot.value.dtype))

    def _constants_on(self, device: Any) -> dict[str, torch.Tensor]:
        place = str(device)
        if place not in self._constants:
            read = self._read_constants()
            self._constants[place] = {
                slot.name: self._in_dtype(slot, read[slot.key].to(device))
                for slot in self.document.constants
            }
        return self._constants[place]


def _nothing(name: str, tensor: torch.Tensor) -> None:
    pass


def _call(step: Step, values: dict[str, Any], device: Any) -> Any:
    try:
        return step.apply(values, device)
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NdtError(f"{step.op} failed: {first[:300]}", layer=step.name) from error


def _present(slot: Slot, state: Mapping[str, Any]) -> str:
    for name in (slot.key, *slot.aliases):
        if name in state:
            return name
    raise UsageError(
        f"the checkpoint has no {slot.key}, which the graph needs",
        remedy="the graph of the model that wrote the checkpoint, or --model",
    )


def _check_shape(slot: Slot, shape: Sequence[int]) -> None:
    if tuple(shape) != slot.value.shape:
        raise UsageError(
            f"{slot.key} has shape {list(shape)} in the checkpoint, "
            f"{list(slot.value.shape)} in the graph",
            remedy="the graph of the model that wrote the checkpoint, or --model",
        )


def _check_input(slot: Slot, tensor: Any) -> None:
    dtype = str(tensor.dtype).removeprefix("torch.")
    have = Value(dtype, tuple(tensor.shape))
    if have != slot.value:
        raise UsageError(
            f"the probe's {slot.key} is {have}; the graph was recorded for {slot.value}",
            remedy="the probe that was recorded with the graph",
        )
