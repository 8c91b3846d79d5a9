"""The tables of lobu.toml: which keys each may have, and what they must be. Checked tables in, settings out."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

from lobu_actors.contract.ids import is_id
from lobu_actors.conversation.policy import Deadlines, FailurePolicy, Guardrail, PolicyError
from supervisor.config.settings import AgentConfig, Limits, ServerSettings
from supervisor.config.table import Table
from supervisor.config.values import DEFAULT_HOST, DEFAULT_PORT, LOOPBACK_HOSTS
from supervisor.workers.types import SANDBOXES, WorkerType

_Part = TypeVar("_Part", Deadlines, FailurePolicy, Guardrail)

MAX_WARM = 64
MAX_MEMORY_MB = 1024 * 1024
MAX_WHOLE_NUMBER = 2**53
# Limits that are not just any positive number.
_LIMIT_BOUNDS = {
    "ticket_ttl_seconds": (1, 300),
    "session_ttl_seconds": (60, 30 * 86_400),
    "requests_per_second": (0, 1_000_000),
    "request_burst": (1, 1_000_000),
}
_WORKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def read_server(table: Table, host: str | None, port: int | None) -> ServerSettings:
    """`host` and `port` come from the command line and win; a loopback `public_url` then follows them."""
    file_host = table.text("host")
    file_port = table.integer("port", DEFAULT_PORT, least=0, most=65_535)
    public_url = table.text("public_url")
    table.finish()
    if public_url is not None:
        public_url = _checked_public_url(table, public_url)
    bound_host = host or file_host or DEFAULT_HOST
    bound_port = port if port is not None else file_port or 0
    moved = host is not None or port is not None
    if public_url is None or (moved and urlsplit(public_url).hostname in LOOPBACK_HOSTS):
        shown = _ANY_ADDRESS.get(bound_host, f"[{bound_host}]" if ":" in bound_host else bound_host)
        public_url = f"http://{shown}:{bound_port}"
    return ServerSettings(public_url, bound_host, bound_port)


def _checked_public_url(table: Table, url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        table.fail("public_url", "must be like http://host:8787 or https://host, with nothing behind the host")
    return url.rstrip("/")


def read_organization(table: Table) -> str:
    organization_id = table.text("id") or "local"
    table.finish()
    if not is_id(organization_id):
        table.fail("id", "must be letters, digits and `. _ : @ + -`, at most 128 of them")
    return organization_id


def read_workers(table: Table, folder: Path) -> dict[str, WorkerType]:
    """`folder` is what relative command paths are relative to."""
    workers: dict[str, WorkerType] = {}
    for name in table.names():
        worker = table.table(name)
        if not _WORKER_NAME.match(name):
            table.fail(name, "is no worker name; use letters, digits, `_` and `-`, at most 64")
        workers[name] = WorkerType(
            name=name,
            command=_command(worker, folder),
            zygote=worker.boolean("zygote", False),
            warm=worker.integer("warm", 0, least=0, most=MAX_WARM) or 0,
            sandbox=_sandbox(worker),
            memory_mb=worker.integer("memory_mb", None, least=16, most=MAX_MEMORY_MB),
        )
        worker.finish()
    return workers


def _sandbox(worker: Table) -> str:
    sandbox = worker.text("sandbox") or "none"
    if sandbox not in SANDBOXES:
        worker.fail("sandbox", f"must be one of {', '.join(SANDBOXES)}")
    if sandbox == "bwrap" and shutil.which("bwrap") is None:
        worker.fail("sandbox", 'needs the program bwrap; install bubblewrap, or set it to "none"')
    return sandbox


def _command(worker: Table, folder: Path) -> tuple[str, ...]:
    command = worker.texts("command")
    if command is None:
        worker.fail(None, 'has no command; add one, like command = ["python", "-m", "my_worker"]')
    if not command or not command[0]:
        worker.fail("command", "must name a program")
    return (_program(worker, command[0], folder), *command[1:])


def _program(worker: Table, program: str, folder: Path) -> str:
    """The program as an absolute path: a worker does not start in the folder of lobu.toml."""
    if program == "python":
        return sys.executable
    if os.sep not in program:
        found = shutil.which(program)
        if found is None:
            worker.fail(
                "command", f"names the program {program!r}, which is not on the PATH; install it or give its path"
            )
        return os.path.abspath(found)
    path = folder / program
    if not path.is_file():
        worker.fail("command", f"names the program {program!r}, and there is no such file ({path})")
    if not os.access(path, os.X_OK):
        worker.fail("command", f"names the program {program!r}, which is not executable; run chmod +x on it")
    return os.path.abspath(path)


def read_agents(tables: list[Table], workers: dict[str, WorkerType], folder: Path) -> tuple[AgentConfig, ...]:
    """`folder` is what relative paths of guardrails' programs are relative to."""
    agents: list[AgentConfig] = []
    for table in tables:
        agent = _agent(table, workers, folder)
        if any(agent.id == other.id for other in agents):
            table.fail("id", f"is {agent.id!r}, which another agent has already; rename one")
        others = [other.id for other in agents if other.default]
        if agent.default and others:
            table.fail("default", f"is true for a second agent ({others[0]!r} is the default already); keep one")
        agents.append(agent)
    return tuple(agents)


def _agent(table: Table, workers: dict[str, WorkerType], folder: Path) -> AgentConfig:
    agent_id = table.text("id")
    worker = table.text("worker")
    agent = AgentConfig(
        id=agent_id or "",
        worker=worker or "",
        default=table.boolean("default", False),
        model=table.text("model"),
        settings=table.json("settings"),
        deadlines=_policy_part(table.table("deadlines"), Deadlines),
        failure=_policy_part(table.table("failure"), FailurePolicy),
        guardrails=tuple(_guardrail(guardrail, folder) for guardrail in table.tables("guardrails")),
    )
    table.finish()
    if agent_id is None:
        table.fail(None, 'has no id; add one, like id = "helper"')
    if not is_id(agent_id):
        table.fail("id", "must be letters, digits and `. _ : @ + -`, at most 128 of them")
    if worker is None:
        table.fail(None, "has no worker; name one of the [workers.…] tables")
    if worker not in workers:
        known = ", ".join(sorted(workers)) or "none so far"
        table.fail("worker", f"is {worker!r}, which no [workers.{worker}] table defines (defined: {known})")
    return agent


def _policy_part(table: Table, kind: type[_Part], resolved: dict[str, Any] | None = None) -> _Part:
    values = {field.name: table.raw(field.name) for field in attrs.fields(kind) if field.name in table}
    for field in attrs.fields(kind):
        table.raw(field.name)
    table.finish()
    try:
        return kind.from_json(values | (resolved or {}))
    except PolicyError as error:
        table.fail(error.key, error.reason)


def _guardrail(table: Table, folder: Path) -> Guardrail:
    resolved = {"command": _command(table, folder)} if "command" in table else None
    return _policy_part(table, Guardrail, resolved)


def read_limits(table: Table) -> Limits:
    defaults = Limits()
    values: dict[str, Any] = {}
    for field in attrs.fields(Limits):
        default = getattr(defaults, field.name)
        if isinstance(default, int):
            least, most = _LIMIT_BOUNDS.get(field.name, (1, MAX_WHOLE_NUMBER))
            values[field.name] = table.integer(field.name, default, least=least, most=most)
        else:
            values[field.name] = table.number(field.name, default)
    table.finish()
    limits = Limits(**values)
    if limits.host_renew_seconds * 2 + limits.host_margin_seconds > limits.host_ttl_seconds:
        table.fail(
            "host_ttl_seconds" if "host_ttl_seconds" in table else None,
            "must leave room for two renewals: at least 2 * host_renew_seconds + host_margin_seconds",
        )
    if limits.upload_file_max_bytes > limits.upload_total_max_bytes:
        table.fail(None, "has upload_file_max_bytes above upload_total_max_bytes; raise the second")
    return limits
