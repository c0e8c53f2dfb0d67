"""A graph from a stranger: whatever it says, nothing runs and the refusal names the place."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_zoo import exported
from torch import nn

from ndt_offline.errors import DamagedError, NdtError, RefusedError
from ndt_offline.graph import Graph, export_graph, load_graph
from ndt_offline.graph.costs import forward_bytes, forward_flops
from ndt_offline.graph.layers import choose_layers
from ndt_offline.graph.operations import ALLOWED

Plain = dict[str, Any]
BIG = 10**9


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    folder = tmp_path_factory.mktemp("good")
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    export_graph(model, torch.randn(5, 4)).save(folder)
    return json.loads((folder / "graph.json").read_text())


def node(name: str, op: str, *args: Any, value: Any = ("float32", [2]), **kwargs: Any) -> Plain:
    plain = {"name": name, "op": op, "args": list(args), "in": ["", 1]}
    return plain | {"value": list(value), "kwargs": kwargs}


def with_node(good: Plain, *nodes: Plain) -> Plain:
    """The good graph whose output is computed from further nodes."""
    bad = copy.deepcopy(good)
    bad["nodes"] += nodes
    bad["output"] = nodes[-1]["name"]
    return bad


def opened(plain: Any, folder: Path) -> Graph:
    data = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    (folder / "graph.json").write_bytes(data)
    graph = load_graph(folder)
    graph.check()
    return graph


REF = {"value": "linear"}
OPERATIONS = [
    "aten.from_file.default",
    "aten.save.default",
    "aten._pin_memory.default",
    "aten.set_.source_Storage",
    "aten.add_.Tensor",
    "aten.add.out",
    "aten.relu_.default",
    "aten.as_strided.default",
    "aten.bernoulli.p",
    "aten.empty.memory_format",
    "aten.item.default",
    "aten.nonzero.default",
    "aten.record_stream.default",
    "aten.linear.__class__",
    "aten.linear.default.__globals__",
    "aten.__class__.default",
    "os.system",
    "builtins.eval",
    "operator.getitem",
    "_operator.getitem",
    "prim.Print.default",
    "torch.load",
    "torch.ops.aten.relu.default",
    "quantized.linear.default",
    "aten..default",
    "aten.relu.default\n",
    "",
    5,
    None,
    ["aten.relu.default"],
]


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
def test_operations_not_on_the_list(op: Any, good: Plain, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="node evil"):
        opened(with_node(good, node("evil", op, REF)), tmp_path)


@pytest.mark.parametrize("overload", ["add.t", "mul.left_t", "add.str", "full.names", "split.str"])
def test_overloads_for_lists_and_strings(overload: str, good: Plain, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="node evil"):
        opened(with_node(good, node("evil", f"aten.{overload}", [1], BIG)), tmp_path)


def test_no_allowed_operation_writes_or_is_random() -> None:
    for name in ALLOWED:
        words = ("rand", "bernoulli", "file", "save", "load", "multinomial", "empty", "strided")
        assert not any(word in name for word in words), name
        assert not name.endswith(("_out", "_backward")), name
        assert name.startswith("_") or not name.endswith("_"), name


VALUE = ("float32", [BIG])
HUGE = [
    node("evil", "aten.full.default", [BIG], 1.0, value=VALUE),
    node("evil", "aten.zeros.default", [BIG], value=VALUE),
    node("evil", "aten.arange.default", BIG, value=("int64", [BIG])),
    node("evil", "aten.expand.default", {"value": "narrow"}, [5, BIG], value=("float32", [5, BIG])),
    node("evil", "aten.repeat.default", REF, [1, BIG], value=VALUE),
    node("evil", "aten.eye.default", 10**5, value=("float32", [10**5, 10**5])),
    node("evil", "aten.constant_pad_nd.default", REF, [0, BIG], value=VALUE),
    node("evil", "aten.new_zeros.default", REF, [10**18, 10**18], value=VALUE),
    node("evil", "aten.upsample_nearest1d.vec", REF, [BIG], None, value=VALUE),
    node("evil", "aten.linspace.default", 0, 1, BIG, value=VALUE),
]


@pytest.mark.parametrize("claim", ["true", "false"])
@pytest.mark.parametrize("evil", HUGE, ids=lambda plain: plain["op"])
def test_a_billion_elements(claim: str, evil: Plain, good: Plain, tmp_path: Path) -> None:
    """Whether the file admits to the size or claims a small one, memory is never asked for."""
    evil = copy.deepcopy(evil)
    if claim == "false":
        evil["value"] = ["float32", [5]]
    narrow = node("narrow", "aten.slice.Tensor", REF, 1, 0, 1, value=("float32", [5, 1]))
    with pytest.raises(RefusedError, match="evil"):
        opened(with_node(good, narrow, evil), tmp_path)


def test_sizes_that_grow_step_by_step(good: Plain, tmp_path: Path) -> None:
    """Every value is allowed, all of them together are not."""
    side = 1 << 14
    nodes = [node("seed", "aten.ones.default", [side, side], value=("float32", [side, side]))]
    for index in range(200):
        nodes.append(
            node(f"n{index}", "aten.exp.default", {"value": "seed"}, value=("float32", [side] * 2))
        )
    last = [{"value": f"n{index}"} for index in range(200)]
    nodes.append(node("all", "aten.cat.default", last, value=("float32", [side, side])))
    with pytest.raises(RefusedError, match="GiB"):
        opened(with_node(good, *nodes), tmp_path)


def test_a_split_into_millions(good: Plain, tmp_path: Path) -> None:
    big = node("big", "aten.zeros.default", [1 << 25], value=("float32", [1 << 25]))
    for op, args in (("unbind.int", []), ("split.Tensor", [1]), ("chunk.default", [1 << 25])):
        evil = node("evil", f"aten.{op}", {"value": "big"}, *args)
        del evil["value"]
        evil["values"] = [["float32", [1]]]
        taken = node("taken", "getitem", {"value": "evil"}, 0, value=("float32", [1]))
        with pytest.raises(RefusedError, match="pieces"):
            opened(with_node(good, big, evil, taken), tmp_path)


def change(path: str, value: Any) -> Callable[[Plain], None]:
    def apply(plain: Plain) -> None:
        *way, last = path.split("/")
        place: Any = plain
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[int(last) if last.isdigit() else last] = value

    return apply


DEEP: Any = 1
for _ in range(50):
    DEEP = [DEEP]
CHANGES = {
    "forward reference": change("nodes/0/args/0", {"value": "relu"}),
    "a loop": change("nodes/0/args/0", {"value": "linear"}),
    "unknown reference": change("nodes/1/args/0", {"value": "nothing"}),
    "duplicate node": change("nodes/1/name", "linear"),
    "node named as a slot": change("nodes/0/name", "flat_0"),
    "duplicate key": change("parameters/1/key", "0.weight"),
    "dotdot": change("parameters/0/key", "../../etc/passwd"),
    "absolute": change("parameters/0/key", "/etc/passwd"),
    "escape": change("parameters/0/key", "a\x1b[31m"),
    "nul": change("parameters/0/key", "a\x00b"),
    "dotdot alias": change("parameters/0/aliases", [".."]),
    "dotdot module": change("nodes/0/in", ["../x", 1]),
    "module of another type": change("nodes/0/in", [3, 1]),
    "call": change("nodes/0/in", ["0", 0]),
    "name with a path": change("nodes/0/name", "a/b"),
    "name of another type": change("nodes/0/name", 3),
    "long name": change("nodes/0/name", "a" * 1000),
    "negative size": change("nodes/0/value", ["float32", [-1, 3]]),
    "absurd size": change("nodes/0/value", ["float32", [10**30]]),
    "float size": change("nodes/0/value", ["float32", [5.0, 3]]),
    "boolean size": change("nodes/0/value", ["float32", [True, 3]]),
    "many dimensions": change("nodes/0/value", ["float32", [1] * 1000]),
    "wrong shape": change("nodes/0/value", ["float32", [5, 4]]),
    "wrong dtype": change("nodes/1/value", ["int64", [5, 3]]),
    "unknown dtype": change("nodes/0/value", ["object", [5, 3]]),
    "no shape": change("nodes/0/value", None),
    "input shape": change("inputs/0/value", ["float32", [5, 7]]),
    "parameter shape": change("parameters/0/value", ["float32", [3, 5]]),
    "nested argument": change("nodes/0/args/1", DEEP),
    "python argument": change("nodes/0/args/1", {"python": "os"}),
    "device argument": change("nodes/0/args/1", {"device": "cuda"}),
    "two in one": change("nodes/0/args/1", {"value": "flat_0", "float": "nan"}),
    "number as reference": change("nodes/0/args/0", {"value": 0}),
    "missing arguments": change("nodes/0/args", []),
    "arguments of another type": change("nodes/0/args", "x"),
    "unknown keyword": change("nodes/1/kwargs", {"out": {"value": "linear"}}),
    "keyword path": change("nodes/1/kwargs", {"a b": 1}),
    "long string": change("nodes/1/args", ["x" * 10_000]),
    "huge integer": change("nodes/1/args", [{"value": "linear"}, 10**40]),
    "output unknown": change("output", "nothing"),
    "output of another type": change("output", ["linear"]),
    "call of nothing": change("calls/0", ["0", 1, "nothing"]),
    "call of another type": change("calls/0", "linear"),
    "short call": change("calls/0", []),
    "nodes of another type": change("nodes", {}),
    "node of another type": change("nodes/0", 7),
    "slot of another type": change("inputs/0", []),
    "structure": change("structure", "pickle"),
    "version": change("version", 2),
    "version of another type": change("version", True),
    "format": change("format", "other"),
    "checksum": change("constants_sha256", "../x"),
    "notes": change("notes", []),
    "number for a dtype": change("nodes/1", node("relu", "aten.view.dtype", REF, -1)),
    "TorchScript's own": change("nodes/1", node("relu", "aten.to.prim_dtype", REF, -1)),
    "text for a number": change("nodes/1", node("relu", "aten.add.Tensor", REF, "1")),
    "too many arguments": change("nodes/1", node("relu", "aten.relu.default", REF, REF)),
    "argument twice": change("nodes/1", node("relu", "aten.relu.default", REF, self=REF)),
    "a long empty axis": change(
        "nodes/1", node("relu", "aten.new_zeros.default", REF, [1 << 31, 0], value=("float32", [0]))
    ),
    "last outside a slice": change(
        "nodes/1", node("relu", "aten.unsqueeze.default", REF, 2**63 - 1)
    ),
    "several results": change("nodes/1/values", [["float32", [5, 3]]]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_refused(name: str, good: Plain, tmp_path: Path) -> None:
    bad = copy.deepcopy(good)
    CHANGES[name](bad)
    with pytest.raises(RefusedError) as caught:
        opened(bad, tmp_path)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable() or "\n  try: " in str(caught.value)


def test_the_unchanged_file_is_taken(good: Plain, tmp_path: Path) -> None:
    opened(good, tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"null", b"1" * 10_000],
    ids=["empty", "cut", "no text", "nested", "nested objects", "list", "null", "digits"],
)
def test_files_that_are_no_graph(data: bytes, tmp_path: Path) -> None:
    with pytest.raises((DamagedError, RefusedError), match=r"graph\.json"):
        opened(data, tmp_path)


def test_a_key_that_stands_twice(good: Plain, tmp_path: Path) -> None:
    text = json.dumps(good).replace('"output":', '"output": "linear", "output":')
    with pytest.raises(RefusedError, match="twice"):
        opened(text.encode(), tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none(number: str, good: Plain, tmp_path: Path) -> None:
    text = json.dumps(good).replace('"version": 1', f'"version": {number}')
    with pytest.raises(RefusedError):
        opened(text.encode(), tmp_path)


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"graph\.json"):
        load_graph(tmp_path)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


def header_of(data: bytes) -> tuple[Plain, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        {},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 10**12]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]},
        {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        {"shape": [4], "data_offsets": [0, 16]},
    ],
    ids=str,
)
def test_constants_from_a_stranger(entry: Any, tmp_path: Path) -> None:
    """Also where graph.json vouches for the file with its checksum."""
    import hashlib

    export_graph(Constant(), torch.randn(2, 4)).save(tmp_path)
    path = tmp_path / "graph.safetensors"
    header, body = header_of(path.read_bytes())
    assert len(header) == 1
    path.write_bytes(packed(dict.fromkeys(header, entry), body))
    with pytest.raises(DamagedError, match="constants"):
        load_graph(tmp_path).run({}, torch.randn(2, 4))
    plain = json.loads((tmp_path / "graph.json").read_text())
    plain["constants_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "graph.json").write_text(json.dumps(plain))
    with pytest.raises(RefusedError, match=r"graph\.safetensors"):
        load_graph(tmp_path).run({}, torch.randn(2, 4))


def test_recurrent_shapes_that_do_not_fit(tmp_path: Path) -> None:
    """Kernels of LSTMs check little themselves: every weight and state is compared before."""
    export_graph(nn.LSTM(3, 4), torch.randn(5, 2, 3)).save(tmp_path)
    plain = json.loads((tmp_path / "graph.json").read_text())
    for index, slot in enumerate(plain["parameters"]):
        bad = copy.deepcopy(plain)
        bad["parameters"][index]["value"][1] = [size + 1 for size in slot["value"][1]]
        with pytest.raises(RefusedError, match="lstm"):
            opened(bad, tmp_path)


def mutated(plain: Any, rng: random.Random) -> Any:
    """One random place replaced by something of another type, or left out, or doubled."""
    junk = [None, True, -1, 10**12, 1.5, "", "..", "linear", [], {}, {"value": "relu"}, [[[[]]]]]
    if isinstance(plain, dict) and plain and rng.random() < 0.9:
        key = rng.choice(list(plain))
        if rng.random() < 0.1:
            return {k: v for k, v in plain.items() if k != key}
        return plain | {key: mutated(plain[key], rng)}
    if isinstance(plain, list) and plain and rng.random() < 0.9:
        index = rng.randrange(len(plain))
        if rng.random() < 0.1:
            return plain[:index] + plain[index + 1 :] + [rng.choice(plain)] * rng.randrange(2)
        return [*plain[:index], mutated(plain[index], rng), *plain[index + 1 :]]
    return rng.choice(junk)


@pytest.mark.parametrize("name", ["mlp", "written_out_attention", "lstm", "gpt", "cnn"])
def test_layers_and_costs_of_changed_files(name: str, tmp_path: Path) -> None:
    """Layers are chosen and costs estimated before shapes are checked."""
    rng = random.Random(7)
    exported(name)[0].save(tmp_path)
    plain = json.loads((tmp_path / "graph.json").read_text())
    for _ in range(150):
        (tmp_path / "graph.json").write_text(json.dumps(mutated(copy.deepcopy(plain), rng)))
        try:
            graph = load_graph(tmp_path)
            choose_layers(graph, ["*"])
            assert forward_flops(graph) >= 0 and forward_bytes(graph) >= 0
            graph.check_state({key: value.shape for key, value in graph.parameters.items()})
        except NdtError:
            continue


def test_random_changes_never_escape(good: Plain, tmp_path: Path) -> None:
    """Whatever is changed: the file is refused by an error of ours, or it is a valid graph."""
    rng = random.Random(5)
    refused = 0
    for _ in range(600):
        try:
            opened(mutated(copy.deepcopy(good), rng), tmp_path)
        except NdtError:
            refused += 1
    assert refused > 300


def test_random_bytes_never_escape(good: Plain, tmp_path: Path) -> None:
    rng = random.Random(6)
    data = json.dumps(good).encode()
    for _ in range(400):
        bad = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            opened(bytes(bad), tmp_path)
        except NdtError:
            continue
