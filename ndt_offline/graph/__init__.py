"""The forward pass of a model as data: exported once, replayed without the user's code.

`export_graph(model, inputs)` makes a `Graph`, `Graph.save(folder)` writes it, `load_graph(folder)`
reads it back. None of the three imports torch before it is needed: reading a graph and choosing
layers in it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndt_offline.graph.opening import load_graph
    from ndt_offline.graph.program import Graph
    from ndt_offline.graph.tracing import export_graph

__all__ = ["Graph", "export_graph", "load_graph"]

_HOME = {"Graph": "program", "export_graph": "tracing", "load_graph": "opening"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ndt_offline.graph' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ndt_offline.graph.{_HOME[name]}"), name)
