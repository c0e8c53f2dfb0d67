"""A graph from its folder."""

from __future__ import annotations

from pathlib import Path

from ndt_offline.graph.program import Graph
from ndt_offline.graph.storage import CONSTANTS, GRAPH, constants_reader, read_document
from ndt_offline.storage.location import locate


def load_graph(folder: str | Path) -> Graph:
    """The graph in `folder` (or the graph.json itself). Runs nothing and loads no torch.

    RefusedError names what is not allowed, DamagedError what cannot be read. Constants are read
    when the graph is first run.
    """
    path = locate(folder)
    path = path / GRAPH if path.is_dir() else path
    document = read_document(path)
    return Graph(document, constants_reader(document, path.with_name(CONSTANTS)))
