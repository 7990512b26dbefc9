"""The house: which room may import which, no circles, no file or signature too long to read."""

from __future__ import annotations

import ast
import graphlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import drc

# A room imports those before it, never one after it. It is the order of the data: what a network
# is, what can be cut from it, how good the result is, how it is shown and shipped; then the one
# driver of all that, and the two doors to it. `opening` needs networks and data alone, but nothing
# below the driver opens a network by name. `settings` knows no step, so that all steps may read it.
ORDER = (
    "core", "settings", "data", "networks", "graph", "merging", "store", "training", "evaluation",
    "selection", "report", "exporters", "opening", "upscaling", "compression", "api", "cli",
    "__main__",
)  # fmt: skip

MOST_LINES = 320
LONGER = {
    "drc/compression.py": 430,  # the driver: all steps of a compression on one page
    "drc/api.py": 380,  # its docstrings are the reference of the public functions
    "drc/networks/zoo/dat.py": 360,  # one file per architecture
    "drc/networks/zoo/dcls.py": 360,
}
MOST_PARAMETERS = 10
MORE_PARAMETERS = {"export": 13}  # what is written, and how it is measured, are not apart yet

ROOT = Path(drc.__file__).parent


class Import(NamedTuple):
    """`module` imports `imported`: when it is loaded, inside a function, or for types alone."""

    module: str
    imported: str
    when: str


def _modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


MODULES = _modules()


def _imports() -> list[Import]:
    found = []
    for name, tree in MODULES.items():
        for node, when in _walk(tree, "load"):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                assert not node.level, f"{name}: write out {ast.unparse(node)}"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = [n for n in names if n.partition(".")[0] == "drc"]
            found += [Import(name, _module_of(n), when) for n in ours]
    return found


def _walk(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """The imports below a node, and when each is done."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, "call")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _walk(child, "types")
        else:
            yield from _walk(child, when)


def _module_of(name: str) -> str:
    """The module that a dotted name is, or lies in."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


IMPORTS = _imports()


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_rank() -> None:
    assert {_room(module) for module in MODULES} <= {"", *ORDER}


def test_rooms_import_only_those_before_them() -> None:
    wrong = []
    for module, imported, _ in IMPORTS:
        here, there = _room(module), _room(imported)
        below = ("core",) if here == "settings" else ORDER[: ORDER.index(here)] if here else ()
        if there not in ("", here, *below):  # the package itself has the version alone
            wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("when", [("load",), ("load", "call")], ids="-".join)
def test_no_module_imports_itself_by_a_detour(when: tuple[str, ...]) -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, imported, moment in IMPORTS:
        if moment in when and module != imported:
            graph[module].add(imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_file_is_too_long_to_read() -> None:
    long = {}
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT.parent).as_posix()
        lines = len(path.read_text("utf-8").splitlines())
        if lines > LONGER.get(name, MOST_LINES):
            long[name] = lines
    assert not long


def test_no_public_function_has_too_many_parameters() -> None:
    functions = [f for f in (getattr(drc, n) for n in drc.__all__) if inspect.isfunction(f)]
    assert functions
    counts = {f.__name__: len(inspect.signature(f).parameters) for f in functions}
    assert not {
        name: n for name, n in counts.items() if n > MORE_PARAMETERS.get(name, MOST_PARAMETERS)
    }
