"""The dependency rule, read from the code: `edge -> lobu_actors <- supervisor`, and who may see what inside the core.

Imports are read with `ast`, so one inside a function or under TYPE_CHECKING counts as well.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("lobu_actors", "supervisor", "edge")
MAX_LINES = 400
MAX_FUNCTION_LINES = 60

# part of the project -> what of the project it may import (a prefix stands for all beneath it)
ALLOWED: dict[str, tuple[str, ...]] = {
    "lobu_actors.contract": ("lobu_actors.contract",),
    "lobu_actors.runtime": ("lobu_actors.runtime",),
    "lobu_actors.worker": ("lobu_actors.worker", "lobu_actors.contract"),
    "lobu_actors.agents": ("lobu_actors.agents", "lobu_actors.worker", "lobu_actors.contract"),
    "lobu_actors.client": ("lobu_actors.client", "lobu_actors.contract"),
    "lobu_actors.store": ("lobu_actors.store", "lobu_actors.contract"),
    "lobu_actors.gateway": (
        "lobu_actors.gateway",
        "lobu_actors.contract",
        "lobu_actors.telemetry",
        "lobu_actors.runtime.timers",
        "lobu_actors.store.link_protocol",
        "lobu_actors.store.link_records",
        "lobu_actors.store.records",
        "lobu_actors.store.standby_records",
        "lobu_actors.store.errors",
    ),
    "lobu_actors.conversation": (
        "lobu_actors.conversation",
        "lobu_actors.contract",
        "lobu_actors.runtime",
        "lobu_actors.gateway",
        "lobu_actors.telemetry",
        "lobu_actors.store.protocol",
        "lobu_actors.store.moving",
        "lobu_actors.store.corrupt",
        "lobu_actors.store.question_records",
        "lobu_actors.store.standby_records",
        "lobu_actors.store.records",
        "lobu_actors.store.errors",
    ),
    "lobu_actors.telemetry": (),
    "edge": ("edge", "lobu_actors"),
    "supervisor": ("supervisor", "lobu_actors"),
}
# The composition roots: the only places of `supervisor` that know `edge`.
COMPOSITION_ROOTS = (
    "supervisor.edge_settings",
    "supervisor.everything",
    "supervisor.units",
)
STANDARD_LIBRARY_ONLY = ("lobu_actors.worker", "supervisor.spawner.__main__")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively; the full name says where a thing is"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def ours(names: set[str], known: set[str]) -> set[str]:
    """The project's modules among `names`; `a.b.thing` counts as `a.b` when only that is a module."""
    return {name for name in names if name in known and name not in PACKAGES}


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_part_may_see(name: str) -> None:
    part = max((prefix for prefix in ALLOWED if within(name, (prefix,))), key=len, default=None)
    if part is None:
        assert name in PACKAGES, f"{name} belongs to no part; say in ALLOWED what it may import"
        return
    allowed = ALLOWED[part] + (("edge",) if name in COMPOSITION_ROOTS else ())
    imported = ours(imports(MODULES[name], name), set(MODULES))
    # `import package.part` also names the package of an allowed module; only real modules with content count.
    wrong = {
        other
        for other in imported
        if not within(other, allowed) and not any(prefix.startswith(other + ".") for prefix in allowed)
    }
    assert not wrong, f"{name} imports {sorted(wrong)}"


def with_what_they_import(prefixes: tuple[str, ...]) -> list[str]:
    """The modules under the prefixes, and whatever of ours they import, directly or not."""
    found: set[str] = set()
    left = [name for name in MODULES if within(name, prefixes)]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += ours(imports(MODULES[name], name), set(MODULES))
    return sorted(found)


@pytest.mark.parametrize("name", with_what_they_import(STANDARD_LIBRARY_ONLY))
def test_what_a_worker_program_imports_is_standard_library_only(name: str) -> None:
    foreign = {
        imported.split(".")[0]
        for imported in imports(MODULES[name], name)
        if imported.split(".")[0] not in sys.stdlib_module_names and imported.split(".")[0] not in PACKAGES
    }
    assert not foreign, f"{name} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_small(name: str) -> None:
    text = MODULES[name].read_text()
    assert len(text.splitlines()) <= MAX_LINES, f"{name}: what are its two halves called?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{name}.{node.name} has {length} lines"


@pytest.mark.parametrize("name", [name for name in MODULES if MODULES[name].name != "__init__.py"])
def test_a_module_says_what_it_owns(name: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[name].read_text())), f"{name} has no docstring"
