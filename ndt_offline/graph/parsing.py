"""Bytes of graph.json to a document: every type, name, size and order is checked, nothing runs.

The file may come from a stranger. What is not exactly as the recorder writes it is refused by
name; recorded shapes are claims, which `guards` checks again before anything is computed.
"""

from __future__ import annotations

import json
import math
import re
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
from ndt_offline.graph.operations import check_allowed

MAX_BYTES = 64 << 20
MAX_NODES = 200_000
MAX_DEPTH = 4
MAX_LIST = 10_000
MAX_DIMENSIONS = 16
# One value of 2 GiB in float32. A larger one is either hostile or does not fit a worker.
MAX_ELEMENTS = 1 << 29
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_KINDS = {
    "dtype": frozenset(ITEM_BYTES),
    "memory_format": frozenset(
        {"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"}
    ),
    "float": frozenset({"inf", "-inf", "nan"}),
}


def parse(data: bytes) -> Document:
    """The document in `data`; DamagedError if it is no JSON, RefusedError if it is hostile."""
    plain = _object(_json(data), "the file")
    if plain.get("format") != FORMAT:
        raise RefusedError(f"not a graph: format is {_show(plain.get('format'))}")
    if plain.get("version") != VERSION:
        raise RefusedError(
            f"graph format version {_show(plain.get('version'))}, this program reads {VERSION}",
            remedy="a newer ndt-offline",
        )
    document = Document(
        structure=_one_of(plain.get("structure"), {"tensor", "tuple", "dict"}, "structure"),
        inputs=_all(plain, "inputs", _slot),
        parameters=_all(plain, "parameters", _slot),
        constants=_all(plain, "constants", _slot),
        nodes=_all(plain, "nodes", _node),
        calls=_all(plain, "calls", _call),
        output=_identifier(plain.get("output"), "output"),
        constants_sha256=_checksum(plain.get("constants_sha256")),
        notes=_object(plain.get("notes", {}), "notes"),
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


def check_key(key: Any, what: str) -> str:
    """A state-dict or module name: printable, no path tricks, at most 500 characters."""
    if not isinstance(key, str) or len(key) > 500:
        raise RefusedError(f"{what}: {_show(key)} is no name")
    parts = key.replace("\\", "/").split("/")
    if ".." in key or not key.isprintable() or (key and parts[0] == ""):
        raise RefusedError(f"{what}: the name {_show(key)} is not allowed")
    return key


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


def _show(thing: Any) -> str:
    return ascii(thing)[:80]


def _new(name: str, known: set[str]) -> None:
    if name in known:
        raise RefusedError(f"the name {_show(name)} stands for two values")
    known.add(name)


def _object(thing: Any, what: str) -> dict[str, Any]:
    if not isinstance(thing, dict):
        raise RefusedError(f"{what} is no object: {_show(thing)}")
    return thing


def _list(thing: Any, what: str, limit: int = MAX_LIST) -> list[Any]:
    if not isinstance(thing, list) or len(thing) > limit:
        raise RefusedError(f"{what} is no list of at most {limit}: {_show(thing)}")
    return thing


def _one_of(thing: Any, allowed: set[str] | frozenset[str], what: str) -> str:
    if not isinstance(thing, str) or thing not in allowed:
        raise RefusedError(f"{what} is {_show(thing)}, not one of {', '.join(sorted(allowed))}")
    return thing


def _identifier(thing: Any, what: str) -> str:
    if not isinstance(thing, str) or not _IDENTIFIER.match(thing):
        raise RefusedError(f"{what}: {_show(thing)} is no name of a value")
    return thing


def _integer(thing: Any, what: str, low: int, high: int) -> int:
    if type(thing) is not int or not low <= thing <= high:
        raise RefusedError(f"{what} is {_show(thing)}, not an integer from {low} to {high}")
    return thing


def _checksum(thing: Any) -> str | None:
    if thing is not None and not (isinstance(thing, str) and re.match(r"[0-9a-f]{64}\Z", thing)):
        raise RefusedError(f"constants_sha256 is {_show(thing)}")
    return thing


def _all(plain: dict[str, Any], key: str, read: Callable[[Any], Any]) -> tuple[Any, ...]:
    return tuple(read(item) for item in _list(plain.get(key), key, MAX_NODES))


def _value(thing: Any, what: str) -> Value:
    dtype, shape = _pair(thing, what)
    sizes = _list(shape, f"{what}: shape", MAX_DIMENSIONS)
    value = Value(
        _one_of(dtype, frozenset(ITEM_BYTES), f"{what}: dtype"),
        tuple(_integer(size, f"{what}: size", 0, 1 << 62) for size in sizes),
    )
    if value.elements > MAX_ELEMENTS:
        raise RefusedError(
            f"{what} has {value.elements} elements, at most {MAX_ELEMENTS} are allowed",
            remedy="a smaller probe",
        )
    return value


def _pair(thing: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(thing, list) or len(thing) != 2:
        raise RefusedError(f"{what} is no pair: {_show(thing)}")
    return thing[0], thing[1]


def _slot(thing: Any) -> Slot:
    plain = _object(thing, "a slot")
    name = _identifier(plain.get("name"), "slot")
    aliases = _list(plain.get("aliases", []), f"{name}: aliases")
    return Slot(
        name,
        check_key(plain.get("key"), name),
        _value(plain.get("value"), name),
        tuple(check_key(alias, name) for alias in aliases),
        plain.get("buffer") is True,
    )


def _call(thing: Any) -> Call:
    module, call, node = (*_list(thing, "a call", 3), None, None, None)[:3]
    return Call(
        check_key(module, "call"),
        _integer(call, "call", 1, MAX_NODES),
        _identifier(node, "call"),
    )


def _node(thing: Any) -> Node:
    plain = _object(thing, "a node")
    name = _identifier(plain.get("name"), "node")
    kwargs = _object(plain.get("kwargs", {}), f"{name}: kwargs")
    module, call = _pair(plain.get("in"), f"{name}: in")
    many = "values" in plain
    values = _list(plain["values"], name) if many else [plain.get("value")]
    node = Node(
        name=name,
        op=check_allowed(plain.get("op"), name),
        args=tuple(_argument(item, name) for item in _list(plain.get("args"), f"{name}: args")),
        kwargs={_identifier(key, name): _argument(item, name) for key, item in kwargs.items()},
        module=check_key(module, name),
        call=_integer(call, name, 1, MAX_NODES),
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
        return _integer(thing, f"node {name}: argument", -(1 << 63), (1 << 63) - 1)
    if isinstance(thing, float):
        if not math.isfinite(thing):
            raise RefusedError(f"node {name}: a number is too large")
        return thing
    if isinstance(thing, str) and len(thing) <= 200:
        return thing
    if isinstance(thing, list) and depth < MAX_DEPTH:
        return [_argument(item, name, depth + 1) for item in _list(thing, f"node {name}")]
    if isinstance(thing, dict) and len(thing) == 1:
        return _special(*next(iter(thing.items())), name)
    raise RefusedError(f"node {name}: the argument {_show(thing)} is not allowed")


def _special(kind: str, what: Any, name: str) -> Any:
    if kind == "value":
        return Ref(_identifier(what, f"node {name}"))
    if kind not in _KINDS:
        raise RefusedError(f"node {name}: an argument of kind {_show(kind)} is not allowed")
    _one_of(what, _KINDS[kind], f"node {name}: {kind}")
    return float(what) if kind == "float" else Named(kind, what)


__all__ = ["MAX_ELEMENTS", "check_key", "check_order", "parse"]
