"""The packages as CONTRIBUTING describes them: no import cycle of any kind, no large module, a tree that is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "bcd_bench": ROOT / "bcd_bench",
    "bcd_bench_bcd": ROOT / "plugins" / "bcd" / "bcd_bench_bcd",
    "bcd_bench_sprites": ROOT / "plugins" / "sprites" / "bcd_bench_sprites",
    "bcd_bench_executors": ROOT / "plugins" / "executors" / "bcd_bench_executors",
    "bcd_bench_faces": ROOT / "plugins" / "faces" / "bcd_bench_faces",
    "bcd_bench_fidelity": ROOT / "plugins" / "fidelity" / "bcd_bench_fidelity",
    "bcd_bench_baselines": ROOT / "baselines" / "bcd_bench_baselines",
}
LONGEST = 400
"""Lines of a module."""


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file."""
    folder = PACKAGES[package]
    found = {}
    for path in folder.rglob("*.py"):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules of the same package that a file imports anywhere: at its top, in functions, for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below if below <= known else below | {node.module}
    return found & known


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1 or node in graph[node]:
                groups.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return groups


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle_of_any_kind(package: str) -> None:
    files = modules(package)
    graph = {name: imports(path, set(files)) for name, path in files.items()}
    graph[package] = set()  # its names are imported on first use
    assert cycles(graph) == []


def test_a_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_large(package: str) -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules(package).items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_the_tree_in_contributing_is_true() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    trees = re.findall(r"```text\n(bcd_bench\w*)/\n(.*?)```", text, re.DOTALL)
    assert {package for package, _ in trees} == set(PACKAGES)
    for package, tree in trees:
        described = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()}
        folder = PACKAGES[package]
        there = {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
        there |= {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}
        assert described == there, package
