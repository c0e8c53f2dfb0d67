"""Where the values of an exported program come from: state dict, inputs, constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import ITEM_BYTES, Call, Node, Slot, Value
from ndt_offline.graph.models import plain_name

if TYPE_CHECKING:
    import torch

PREFIX = "model."


class Conversion:
    """State of one conversion: what each of torch's nodes became."""

    def __init__(self, exported: Any, model: torch.nn.Module, flat: dict[str, Any]) -> None:
        self.exported, self.model = exported, model
        self.keys = list(flat)
        self.refs: dict[str, str] = {}
        self.slots: dict[str, list[Slot]] = {"inputs": [], "parameters": [], "constants": []}
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.constants: dict[str, torch.Tensor] = {}
        self.returned: dict[str, int] = {}
        self.refused: dict[str, RefusedError] = {}
        self.left_out: dict[str, str] = {}
        self.names = _state_names(model)
        self.paths = _first_paths(model)


def add_slot(work: Conversion, node: Any, spec: Any) -> None:
    """Take a placeholder: an input, a tensor of the state dict, or a constant."""
    kind = spec.kind.name
    name = node.name
    work.refs[name] = name
    if kind == "USER_INPUT":
        key = work.keys[len(work.slots["inputs"])]
        work.slots["inputs"].append(Slot(name, key, _one(node.meta["val"], name)))
    elif kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
        _state_slot(work, node, str(spec.target), kind == "BUFFER")
    else:
        raise RefusedError(f"input {name} of kind {kind} cannot be stored in a graph")


def _state_slot(work: Conversion, node: Any, target: str, buffer: bool) -> None:
    value = _one(node.meta["val"], node.name)
    tensor = _tensor(work, target)
    key = target.removeprefix(PREFIX)
    names = work.names.get(id(tensor), [])
    if names:
        first = key if key in names else names[0]
        slot = Slot(node.name, first, value, tuple(n for n in names if n != first), buffer)
        twin = next((s for s in work.slots["parameters"] if s.key in names), None)
        if twin is None:
            work.slots["parameters"].append(slot)
        else:
            work.refs[node.name] = twin.name
        return
    work.slots["constants"].append(Slot(node.name, key, value))
    work.constants[key] = tensor.detach().to("cpu").contiguous()


def _tensor(work: Conversion, target: str) -> Any:
    """The live tensor of that name: identity finds tied names, which values would not."""
    owner, _, name = target.removeprefix(PREFIX).rpartition(".")
    try:
        module = work.model.get_submodule(owner)
        for table in (module._parameters, module._buffers):
            if table.get(name) is not None:
                return table[name]
    except AttributeError:
        pass
    known = work.exported.constants.get(target, work.exported.state_dict.get(target))
    if known is None:
        raise RefusedError(f"the value of {target} is not in the exported program")
    return known


def tensor_value(result: Any, name: str) -> Value | None:
    """Dtype and shape of a (fake) tensor; None for None."""
    if result is None:
        return None
    if not hasattr(result, "dtype"):
        raise RefusedError(f"node {name} gives {type(result).__name__}, not a tensor")
    return Value(dtype_name(result.dtype, name), tuple(int(size) for size in result.shape))


def _one(result: Any, name: str) -> Value:
    value = tensor_value(result, name)
    if value is None:
        raise RefusedError(f"input {name} is None")
    return value


def dtype_name(dtype: Any, name: str) -> str:
    """`float32` for torch.float32; RefusedError for one a graph cannot hold."""
    plain = str(dtype).removeprefix("torch.")
    if plain not in ITEM_BYTES:
        raise RefusedError(f"node {name}: dtype {plain} cannot be stored in a graph")
    return plain


def _state_names(model: torch.nn.Module) -> dict[int, list[str]]:
    """Names in the state dict by identity of the tensor; tied tensors have several."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(plain_name(name))
    return names


def _first_paths(model: torch.nn.Module) -> dict[str, str]:
    """For a module that stands under several paths, the path its hooks are named by."""
    first = {id(module): path for path, module in model.named_modules()}
    every = model.named_modules(remove_duplicate=False)
    return {path: first[id(module)] for path, module in every}
