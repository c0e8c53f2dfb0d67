"""Random calls of every allowed operator: run as a script, so that a crash is seen as one.

An attacker knows the shape rules too: the recorded result of every node is the true one.
Usage: fuzz_graph.py SEED COUNT. Prints one JSON line of counts; its last node is on standard error.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import torch

from ndt_offline.errors import NdtError
from ndt_offline.graph import guards
from ndt_offline.graph.operations import ALLOWED, RECURRENT, functional, packet
from ndt_offline.graph.parsing import parse
from ndt_offline.graph.program import Graph
from ndt_offline.graph.steps import make_steps
from ndt_offline.replay.footprint import peak_memory

VALUES: dict[str, tuple[str, list[int]]] = {
    "a": ("float32", [2, 3]),
    "b": ("float32", [3, 4]),
    "c": ("float32", [2, 3, 4, 4]),
    "d": ("int64", [2, 3]),
    "e": ("float32", [3]),
    "f": ("bool", [2, 3]),
    "g": ("float32", [2, 5, 3]),
    "h": ("float32", []),
    "i": ("float32", [4, 3, 2, 2]),
    "j": ("int64", [5]),
    "k": ("float32", [0, 3]),
}
INTEGERS = [0, 1, 2, 3, -1, -2, 4, 16, 1000, 10**6, 10**9, -(10**9), 2**31, 2**40, 2**62]
WORDS = ["mean", "none", "trunc", "floor", "ij,jk", "constant", "reflect", "sum", "right", "ij"]
DTYPES = [{"dtype": name} for name in ("float32", "int64", "complex64", "bool", "bfloat16")]


def operators() -> list[Any]:
    found = []
    for name in sorted(ALLOWED):
        family = getattr(torch.ops.aten, name, None)
        overloads = family.overloads() if family else []
        found += [getattr(family, o) for o in overloads if not o.startswith("prim_")]
    return [operator for operator in found if functional(operator)]


def argument(kind: str, rng: random.Random) -> Any:
    if kind.startswith("Optional["):
        return None if rng.random() < 0.4 else argument(kind[9:-1], rng)
    if kind.startswith("List["):
        return [argument(kind[5:-1], rng) for _ in range(rng.choice([0, 1, 2, 2, 3, 4]))]
    choices: dict[str, list[Any]] = {
        "Tensor": [{"value": name} for name in VALUES],
        "int": INTEGERS if rng.random() < 0.5 else [0, 1, 2, -1],
        "float": [0.0, 1.0, -1.0, 1e30, 0.5, {"float": "nan"}],
        "number": [0.5, 2, 1, 10**9, -1],
        "bool": [False, True],
        "str": WORDS,
        "ScalarType": [*DTYPES, -1, 99],
        "MemoryFormat": [{"memory_format": "channels_last"}, {"memory_format": "preserve_format"}],
    }
    return rng.choice(choices.get(kind, [None]))


def random_node(operator: Any, rng: random.Random) -> dict[str, Any]:
    schema = operator._schema
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for known in schema.arguments:
        if known.kwarg_only:
            if rng.random() < 0.3 and known.name not in ("device", "layout", "pin_memory"):
                kwargs[known.name] = argument(str(known.real_type), rng)
        elif len(args) == schema.arguments.index(known):
            if known.has_default_value() and rng.random() < 0.5:
                continue
            args.append(argument(str(known.real_type), rng))
    node = {"name": "n", "op": str(operator), "args": args, "kwargs": kwargs, "in": ["", 1]}
    several = len(schema.returns) > 1 or "List" in str(schema.returns[0].type)
    return node | ({"values": []} if several else {"value": ["float32", [1]]})


def opened(node: dict[str, Any]) -> Graph:
    slots = [
        {"name": name, "key": f"x.{index}", "value": list(VALUES[name])}
        for index, name in enumerate(VALUES)
    ]
    plain = {"format": "ndt-offline graph", "version": 1, "structure": "tuple", "inputs": slots}
    plain |= {"parameters": [], "constants": [], "calls": [], "nodes": [node], "output": "n"}
    return Graph(parse(json.dumps(plain).encode()))


def claimed(node: dict[str, Any]) -> dict[str, Any]:
    """The node with the result that the guard derives for it."""
    document = opened(node).document
    known = {slot.name: (slot.value,) for slot in document.slots()}
    step = make_steps(document, None)[0]
    if packet(node["op"]) in RECURRENT:
        result = guards.recurrent_result(document.nodes[0], known)
    else:
        result = guards._derive(document.nodes[0], step, known)
    plain = [value and [value.dtype, list(value.shape)] for value in result]
    return node | ({"values": plain} if "values" in node else {"value": plain[0]})


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    makers = {
        "float32": torch.randn,
        "int64": lambda shape: torch.randint(-3, 9, shape),
        "bool": lambda shape: torch.rand(shape) > 0.5,
    }
    return tuple(makers[dtype](shape) for dtype, shape in VALUES.values())


def main(seed: int, count: int) -> None:
    rng, batch, known = random.Random(seed), inputs(), operators()
    counts = {"refused": 0, "failed": 0, "ran": 0}
    for _ in range(count):
        node = random_node(rng.choice(known), rng)
        print(json.dumps(node), file=sys.stderr, flush=True)
        try:
            graph = opened(claimed(node))
            graph.check()
        except NdtError:
            counts["refused"] += 1
            continue
        try:
            graph.run({}, batch)
            counts["ran"] += 1
        except NdtError:
            counts["failed"] += 1
    counts["peak_mb"] = peak_memory() >> 20
    print(json.dumps(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
