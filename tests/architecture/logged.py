"""Every log line that the program can write, read from its source: event, level, fields.

A call counts when it is on `log`, `_log` or `self._log`, or on one of two of their methods by a condition. Its event
must stand there as a text: what is put together at run time could hold anything.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PARTS = ("lobu_actors", "supervisor", "edge")
LEVELS = {"debug", "info", "warning", "error", "exception"}
LOGGERS = {"log", "_log"}
NOTES = {"Note"}  # an effect of `decide` that is a log line


@attrs.frozen
class Line:
    event: str
    levels: frozenset[str]
    fields: frozenset[str]
    where: str


def lines() -> list[Line]:
    paths = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
    # Agents are programs of their own: what they say, their supervisor logs as a worker's.
    return [line for path in paths if ROOT / "lobu_actors" / "agents" not in path.parents for line in _of_file(path)]


def _of_file(path: Path) -> Iterator[Line]:
    tree = ast.parse(path.read_text())
    bound = _bound(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        levels = _levels(node.func)
        if levels and node.args:
            if isinstance(node.args[0], ast.Name) and path.name == "apply.py":
                continue  # a Note's, whose makers are found below
            fields = {keyword.arg for keyword in node.keywords if keyword.arg}
            yield from _each(node.args[0], levels, fields | _bound_by(node.func, bound), where)
        elif isinstance(node.func, ast.Name | ast.Attribute) and _name(node.func) in NOTES and node.args:
            given = node.args[1] if len(node.args) > 1 else None
            named = (
                {key.value for key in given.keys if isinstance(key, ast.Constant)}
                if isinstance(given, ast.Dict)
                else set()
            )
            alarm = any(keyword.arg == "alarm" for keyword in node.keywords)
            yield from _each(node.args[0], {"error"} if alarm else {"info"}, named | {"conversation", "epoch"}, where)


def _each(event: ast.expr, levels: set[str], fields: set[str], where: str) -> Iterator[Line]:
    shown = {"error" if level == "exception" else level for level in levels}
    for text in [event.body, event.orelse] if isinstance(event, ast.IfExp) else [event]:
        assert isinstance(text, ast.Constant), f"{where}: the event is not a text that stands there"
        yield Line(str(text.value), frozenset(shown), frozenset(fields - {"exc_info"}), where)


def _levels(function: ast.expr) -> set[str]:
    if isinstance(function, ast.IfExp):
        return _levels(function.body) | _levels(function.orelse)
    if isinstance(function, ast.Attribute) and function.attr in LEVELS and _name(function.value) in LOGGERS:
        return {function.attr}
    return set()


def _bound(tree: ast.Module) -> set[str]:
    """Fields that `self._log` of this module has, from `self._log = log.bind(…)`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "bind":
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


def _bound_by(function: ast.expr, bound: set[str]) -> set[str]:
    one = function.body if isinstance(function, ast.IfExp) else function
    holder = one.value if isinstance(one, ast.Attribute) else one
    return bound if isinstance(holder, ast.Attribute) else set()


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
