"""What a program loads before it does anything: how long its start takes is how much that is.

Not asked of: rich and cryptography, which structlog and PyJWT load by themselves where other packages brought them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
OF_CLIENTS = {"httpx", "httpcore", "anyio", "lobu_actors.client"}
OF_TESTS = {"pytest", "hypothesis", "benchmarks", "lobu_actors.store.memory", "setuptools", "pkg_resources"}
OF_AGENTS = {"mcp", "pydantic", "openai", "acp", "lobu_actors.agents"}
OF_SERVERS = {"quart", "flask", "hypercorn", "trio_websocket", "prometheus_client", "structlog", "edge"}
# See `edge.application`.
OF_ROUTES = {
    "quart",
    "quart_trio",
    "flask",
    "werkzeug",
    "jinja2",
    "hypercorn",
    "h2",
    "edge.app",
    "edge.protocols",
    "edge.routes",
}
OF_STORES = {"psycopg", "lobu_actors.store.postgres"}
ELSEWHERE = OF_CLIENTS | OF_TESTS | OF_AGENTS | {"opentelemetry", "supervisor.singletons.telegram.poller"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
HEAVY = {"trio", "asyncio", "attr", "click", "structlog", "inspect", "dataclasses", "email", "ssl", "uuid", "logging"}

NOT_NEEDED = {
    "supervisor.cli.run": ELSEWHERE | OF_ROUTES,
    "supervisor.cli.supervisor": ELSEWHERE | OF_ROUTES,
    "supervisor.cli.edge": ELSEWHERE | OF_ROUTES,
    "supervisor.cli.chat": OF_TESTS | OF_AGENTS | OF_SERVERS | OF_STORES,
    "supervisor.cli.cancel": OF_TESTS | OF_AGENTS | OF_SERVERS | OF_STORES,
    "supervisor.cli.token": OF_TESTS | OF_AGENTS | OF_SERVERS | OF_CLIENTS,
    "supervisor.cli.migrate": OF_TESTS | OF_AGENTS | OF_SERVERS | OF_CLIENTS,
    "supervisor.cli.postgres": OF_TESTS | OF_AGENTS | (OF_SERVERS - {"structlog"}) | OF_CLIENTS,
    "supervisor.cli.main": HEAVY - {"click", "inspect", "uuid"} | OF_STORES | {"supervisor.everything"},
    "supervisor.cli.spawner": OF_TESTS | OF_AGENTS | OF_SERVERS | OF_CLIENTS | OF_STORES | {"trio"},
    "supervisor.spawner.__main__": HEAVY,
    "lobu_actors.agents.echo": HEAVY | {"subprocess", "pathlib"},
}


@pytest.mark.parametrize("module", NOT_NEEDED)
def test_a_program_loads_only_what_it_uses(module: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    loaded = set(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout))
    assert module in loaded
    assert not {name for name in loaded if _parents(name) & NOT_NEEDED[module]}


# Behind the thread's work, or for requests that have waited for it.
LATE = {"application.py", "server.py", "request.py"}


@pytest.mark.parametrize("path", sorted(Path("edge").glob("*.py")), ids=lambda path: path.name)
def test_nobody_loads_the_routes_beside_the_thread_that_does(path: Path) -> None:
    """Two that load one package at the same time may each see the other's half of it."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS)]
    named = {name for function in functions for node in ast.walk(function) for name in _loads(node)}
    assert not {name for name in named if _parents(name) & OF_ROUTES} or path.name in LATE


def _loads(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _parents(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
