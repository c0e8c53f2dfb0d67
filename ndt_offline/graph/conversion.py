"""torch.export's program to our document: aten nodes kept, the rest removed or refused."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import RefusedError
from ndt_offline.graph.document import Call, Document, Named, Node, Ref, layer_name
from ndt_offline.graph.models import plain_name
from ndt_offline.graph.operations import check_allowed, packet, resolve
from ndt_offline.graph.parsing import check_order
from ndt_offline.graph.sources import PREFIX, Conversion, add_slot, dtype_name, tensor_value
from ndt_offline.graph.steps import needed

if TYPE_CHECKING:
    import torch

_PYTHON_OPERATOR = re.compile(r"\Aaten\.__(and|or|xor)__\.")
_CALL = re.compile(r"@\d+\Z")
# Placement is decided by the replay: no node names a device.
_DROPPED_KWARGS = {"device", "pin_memory", "non_blocking", "layout"}
_SAME = {"alias", "detach", "detach_", "lift_fresh", "lift_fresh_copy", "contiguous"}


def convert(
    exported: Any, model: torch.nn.Module, flat: dict[str, torch.Tensor], kind: str
) -> tuple[Document, dict[str, torch.Tensor]]:
    """The document of an exported program around `model`, and its constants by name."""
    work = Conversion(exported, model, flat)
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    output = ""
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            add_slot(work, node, specs[node.name])
        elif node.op == "call_function":
            _function(work, node)
        elif node.op == "output":
            output = _output(work, node)
        else:
            raise RefusedError(f"node {node.name}: {node.op} {node.target} is not allowed")
    return _finish(work, kind, output)


def _finish(work: Conversion, kind: str, output: str) -> tuple[Document, dict[str, torch.Tensor]]:
    import torch

    document = Document(
        structure=kind,
        inputs=tuple(work.slots["inputs"]),
        parameters=tuple(work.slots["parameters"]),
        constants=tuple(work.slots["constants"]),
        nodes=tuple(work.nodes),
        calls=tuple(work.calls),
        output=output,
        notes={"torch": torch.__version__, "left_out": work.left_out},
    )
    document = _pruned(document)
    check_order(document)
    kept = {slot.key for slot in document.constants}
    return document, {key: value for key, value in work.constants.items() if key in kept}


def _pruned(document: Document) -> Document:
    """Without nodes, parameters and constants that neither the output nor a module needs."""
    from dataclasses import replace

    keep = needed(document, [call.node for call in document.calls])
    return replace(
        document,
        nodes=tuple(node for node in document.nodes if node.name in keep),
        parameters=tuple(slot for slot in document.parameters if slot.name in keep),
        constants=tuple(slot for slot in document.constants if slot.name in keep),
    )


def _function(work: Conversion, node: Any) -> None:
    op = _PYTHON_OPERATOR.sub(r"aten.bitwise_\1.", str(node.target))
    if op.startswith("ndt_offline.mark"):
        _mark(work, *node.args)
        return
    inherited = [work.refused[n.name] for n in node.all_input_nodes if n.name in work.refused]
    try:
        if inherited:
            raise inherited[0]
        _operation(work, node, op)
    except RefusedError as error:
        # It may be a loss, or another branch that the output does not need.
        work.refused[node.name] = error


def _mark(work: Conversion, tensor: Any, module: str, call: int) -> None:
    module = plain_name(module)
    work.returned[module] = call
    if tensor.name in work.refused:
        work.left_out[layer_name(module, call)] = work.refused[tensor.name].what
    else:
        work.calls.append(Call(module, call, work.refs[tensor.name]))


def _operation(work: Conversion, node: Any, op: str) -> None:
    if node.target is operator.getitem:
        _add(work, node, "getitem")
        return
    name = packet(op)
    if name.startswith(("_assert", "sym_")):
        return
    source = _same(node, name)
    if source is not None:
        work.refs[node.name] = work.refs[source.name]
        return
    _add(work, node, check_allowed(op, node.name))


def _same(node: Any, name: str) -> Any | None:
    """The argument whose values an operation only hands on (a copy is one, without mutation)."""
    source: Any = node.args[0] if node.args else None
    if not hasattr(source, "meta") or "val" not in source.meta:
        return None
    before, after = source.meta["val"], node.meta["val"]
    unchanged = getattr(before, "dtype", None) == getattr(after, "dtype", 0)
    if name in _SAME and unchanged:
        return source
    plain = not {k for k, v in node.kwargs.items() if v is not None} - _DROPPED_KWARGS - {"dtype"}
    if name in ("clone", "_to_copy", "to") and unchanged and plain:
        return source
    return None


def _add(work: Conversion, node: Any, op: str) -> None:
    if op != "getitem":
        resolve(op, node.name)
    result = node.meta["val"]
    many = isinstance(result, (tuple, list))
    used = _taken(node)
    module, call = _scope(work, node)
    work.refs[node.name] = node.name
    work.nodes.append(
        Node(
            name=node.name,
            op=op,
            args=tuple(_argument(work, item, node.name) for item in node.args),
            kwargs={
                key: _argument(work, item, node.name)
                for key, item in node.kwargs.items()
                if key not in _DROPPED_KWARGS
            },
            module=module,
            call=call,
            values=tuple(
                tensor_value(part if index in used or not many else None, node.name)
                for index, part in enumerate(result if many else [result])
            ),
            many=many,
        )
    )


def _taken(node: Any) -> set[int]:
    """Which of several results are used; the others may differ between devices."""
    return {user.args[1] for user in node.users if user.target is operator.getitem}


def _scope(work: Conversion, node: Any) -> tuple[str, int]:
    """The innermost module a node ran in, and which of its calls: the one yet to return."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", 1
    path = _CALL.sub("", str(list(stack.values())[-1][0]))
    path = "" if path == "model" else path.removeprefix(PREFIX)
    path = plain_name(work.paths.get(path, path))
    return path, work.returned.get(path, 0) + 1


def _argument(work: Conversion, item: Any, name: str) -> Any:
    import torch

    if isinstance(item, torch.fx.Node):
        return Ref(work.refs[item.name])
    if isinstance(item, (tuple, list)):
        return [_argument(work, inner, name) for inner in item]
    if isinstance(item, torch.dtype):
        return Named("dtype", dtype_name(item, name))
    if isinstance(item, torch.memory_format):
        return Named("memory_format", str(item).removeprefix("torch."))
    if isinstance(item, torch.device):
        return None
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise RefusedError(f"node {name}: an argument of type {type(item).__name__} cannot be stored")


def _output(work: Conversion, node: Any) -> str:
    specs = work.exported.graph_signature.output_specs
    chosen = [spec.arg.name for spec in specs if spec.kind.name == "USER_OUTPUT"]
    if chosen[0] in work.refused:
        raise work.refused[chosen[0]]
    return work.refs[chosen[0]]
