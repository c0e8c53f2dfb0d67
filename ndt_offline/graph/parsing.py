"""Bytes of graph.json to a document: every type, name, size and order is checked, nothing runs.

The file may come from a stranger. What is not exactly as the recorder writes it is refused by
name; recorded shapes are claims, which `guards` checks again before anything is computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from ndt_offline.errors import DamagedError, RefusedError
from ndt_offline.graph.document import (
    FORMAT,
    ITEM_BYTES,
    VERSION,
    Call,
    Document,
    Named,
    Node,
    Ref,
    Slot,
    Value,
)
from ndt_offline.graph.fields import (
    check_key,
    show,
    take_checksum,
    take_identifier,
    take_integer,
    take_list,
    take_object,
    take_one_of,
    take_pair,
)
from ndt_offline.graph.operations import check_allowed

MAX_BYTES = 64 << 20
MAX_NODES = 200_000
MAX_DEPTH = 4
MAX_DIMENSIONS = 16
# One value of 2 GiB in float32. A larger one is either hostile or does not fit a worker.
MAX_ELEMENTS = 1 << 29
_KINDS = {
    "dtype": frozenset(ITEM_BYTES),
    "memory_format": frozenset(
        {"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"}
    ),
    "float": frozenset({"inf", "-inf", "nan"}),
}


def parse(data: bytes) -> Document:
    """The document in `data`; DamagedError if it is no JSON, RefusedError if it is hostile."""
    plain = take_object(_json(data), "the file")
    if plain.get("format") != FORMAT:
        raise RefusedError(f"not a graph: format is {show(plain.get('format'))}")
    if plain.get("version") is True or plain.get("version") != VERSION:
        raise RefusedError(
            f"graph format version {show(plain.get('version'))}, this program reads {VERSION}",
            remedy="a newer ndt-offline",
        )
    document = Document(
        structure=take_one_of(plain.get("structure"), {"tensor", "tuple", "dict"}, "structure"),
        inputs=_all(plain, "inputs", _slot),
        parameters=_all(plain, "parameters", _slot),
        constants=_all(plain, "constants", _slot),
        nodes=_all(plain, "nodes", _node),
        calls=_all(plain, "calls", _call),
        output=take_identifier(plain.get("output"), "output"),
        constants_sha256=take_checksum(plain.get("constants_sha256")),
        notes=take_object(plain.get("notes", {}), "notes"),
    )
    check_order(document)
    return document


def check_order(document: Document) -> None:
    """Every name is new, every reference is to an earlier one: so there is no loop."""
    keys: set[str] = set()
    known: set[str] = set()
    for slot in document.slots():
        _new(slot.name, known)
    for slots in (document.inputs, document.parameters, document.constants):
        keys.clear()
        for slot in slots:
            _new(slot.key, keys)
    for node in document.nodes:
        for name in node.refs():
            if name not in known:
                raise RefusedError(f"node {node.name} reads {name}, which no earlier node makes")
        _new(node.name, known)
    for name in (document.output, *(call.node for call in document.calls)):
        if name not in known:
            raise RefusedError(f"{name} is named as a result, but no node makes it")


def _json(data: bytes) -> Any:
    if len(data) > MAX_BYTES:
        raise RefusedError(f"the file has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise RefusedError("the file is nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedError(f"not valid JSON: {str(error)[:200]}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) != len(pairs):
        raise RefusedError("a key stands twice in one object")
    return plain


def _no_constant(text: str) -> Any:
    raise RefusedError(f"{text} is not JSON")


def _new(name: str, known: set[str]) -> None:
    if name in known:
        raise RefusedError(f"the name {show(name)} stands for two values")
    known.add(name)


def _all(plain: dict[str, Any], key: str, read: Callable[[Any], Any]) -> tuple[Any, ...]:
    return tuple(read(item) for item in take_list(plain.get(key), key, MAX_NODES))


def _value(thing: Any, what: str) -> Value:
    dtype, shape = take_pair(thing, what)
    sizes = take_list(shape, f"{what}: shape", MAX_DIMENSIONS)
    value = Value(
        take_one_of(dtype, frozenset(ITEM_BYTES), f"{what}: dtype"),
        tuple(take_integer(size, f"{what}: size", 0, 1 << 40) for size in sizes),
    )
    if value.elements > MAX_ELEMENTS:
        raise RefusedError(
            f"{what} has {value.elements} elements, at most {MAX_ELEMENTS} are allowed",
            remedy="a smaller probe",
        )
    return value


def _slot(thing: Any) -> Slot:
    plain = take_object(thing, "a slot")
    name = take_identifier(plain.get("name"), "slot")
    aliases = take_list(plain.get("aliases", []), f"{name}: aliases")
    return Slot(
        name,
        check_key(plain.get("key"), name),
        _value(plain.get("value"), name),
        tuple(check_key(alias, name) for alias in aliases),
        plain.get("buffer") is True,
    )


def _call(thing: Any) -> Call:
    module, call, node = (*take_list(thing, "a call", 3), None, None, None)[:3]
    return Call(
        check_key(module, "call"),
        take_integer(call, "call", 1, MAX_NODES),
        take_identifier(node, "call"),
    )


def _node(thing: Any) -> Node:
    plain = take_object(thing, "a node")
    name = take_identifier(plain.get("name"), "node")
    kwargs = take_object(plain.get("kwargs", {}), f"{name}: kwargs")
    module, call = take_pair(plain.get("in"), f"{name}: in")
    many = "values" in plain
    values = take_list(plain["values"], name) if many else [plain.get("value")]
    node = Node(
        name=name,
        op=check_allowed(plain.get("op"), name),
        args=tuple(_argument(item, name) for item in take_list(plain.get("args"), f"{name}: args")),
        kwargs={take_identifier(key, name): _argument(item, name) for key, item in kwargs.items()},
        module=check_key(module, name),
        call=take_integer(call, name, 1, MAX_NODES),
        values=tuple(None if many and v is None else _value(v, name) for v in values),
        many=many,
    )
    if node.op == "getitem":
        _check_getitem(node)
    return node


def _check_getitem(node: Node) -> None:
    shape = [type(argument) for argument in node.args]
    if shape != [Ref, int] or node.kwargs or node.args[1] < 0:
        raise RefusedError(f"node {node.name}: getitem takes a value and an index")


def _argument(thing: Any, name: str, depth: int = 0) -> Any:
    if thing is None or isinstance(thing, bool):
        return thing
    if isinstance(thing, int):
        return take_integer(thing, f"node {name}: argument", -(1 << 63), (1 << 63) - 1)
    if isinstance(thing, float):
        if not math.isfinite(thing):
            raise RefusedError(f"node {name}: a number is too large")
        return thing
    if isinstance(thing, str) and len(thing) <= 200:
        return thing
    if isinstance(thing, list) and depth < MAX_DEPTH:
        return [_argument(item, name, depth + 1) for item in take_list(thing, f"node {name}")]
    if isinstance(thing, dict) and len(thing) == 1:
        return _special(*next(iter(thing.items())), name)
    raise RefusedError(f"node {name}: the argument {show(thing)} is not allowed")


def _special(kind: str, what: Any, name: str) -> Any:
    if kind == "value":
        return Ref(take_identifier(what, f"node {name}"))
    if kind not in _KINDS:
        raise RefusedError(f"node {name}: an argument of kind {show(kind)} is not allowed")
    take_one_of(what, _KINDS[kind], f"node {name}: {kind}")
    return float(what) if kind == "float" else Named(kind, what)
