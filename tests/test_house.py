"""The shape of the house: which part may import which, and what a light import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ndt_offline"

# What each part may import besides itself, `errors`, `extension`, `heap`, `compiled` and `storage`.
ALLOWED = {
    "errors": set(),
    "compiled": set(),
    "extension": set(),
    "heap": set(),
    "storage": set(),
    "detect": set(),
    "measure": set(),
    "relate": set(),
    "run": set(),
    "graph": set(),
    "store": set(),
    "record": {"run", "graph"},
    "replay": {"run", "graph", "store", "measure"},
    "execute": {"run", "graph", "replay", "store", "detect", "measure", "relate"},
    "report": {"store", "measure", "detect", "relate"},
    "pipeline": {"run", "graph", "replay", "store", "execute", "report", "measure"},
}
PURE = {"detect", "measure", "relate"}
HEAVY = {"torch", "dask", "distributed", "zarr"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imported(path)
    if part in PURE:
        assert not {name.split(".")[0] for name in names} & HEAVY
    if part not in ALLOWED:
        return
    parts = {n.split(".")[1] for n in names if n.startswith("ndt_offline.")}
    everywhere = {"errors", "extension", "__version__"} | (
        set() if part in PURE else {"compiled", "heap", "storage"}
    )
    assert parts <= ALLOWED[part] | {part} | everywhere


def test_no_circles_between_modules() -> None:
    names = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in modules()}
    edges = {
        name: {other for other in imported(path) if other in names and other != name}
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for other in edges.get(name, ()):
            visit(other, (*trail, name))
        done.add(name)

    for name in edges:
        visit(name, ())


def loaded_by(code: str, *roots: str) -> set[str]:
    check = f"import sys; {code}; print(sorted(set({list(roots)!r}) & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(out.stdout.strip().splitlines()[-1]))


def test_importing_the_package_is_light() -> None:
    roots = ("torch", "dask", "distributed", "zarr", "scipy", "matplotlib", "numpy")
    assert loaded_by("import ndt_offline", *roots) == set()


def test_numba_is_loaded_by_nothing_but_a_long_replay() -> None:
    """It takes as long to import as many a short analysis takes."""
    code = "import ndt_offline.cli.analyze, ndt_offline.execute.task, ndt_offline.replay.lanes"
    assert loaded_by(code, "numba", "llvmlite") == set()
