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
from lobu_actors.store.database_url import TcpTimeouts
from supervisor.config.settings import MIB, AgentConfig, Limits, ServerSettings
from supervisor.config.table import MAX_NUMBER, Table
from supervisor.config.values import DEFAULT_HOST, DEFAULT_PORT, LOOPBACK_HOSTS
from supervisor.sandbox.destinations import DISPATCHER, Destination, parse_destination
from supervisor.workers.types import SANDBOXES, WorkerType

_Part = TypeVar("_Part", Deadlines, FailurePolicy, Guardrail)

MAX_WARM = 64
MAX_RECONNECT_SECONDS = 600
_WORKER_BOUNDS = {
    "memory_mb": (16, 1024 * 1024),
    "cpu_seconds": (1, 10 * 365 * 86_400),
    "open_files": (16, 1024 * 1024),
    "processes": (1, 1024 * 1024),
    "file_size_mb": (1, 1024 * 1024),
    "temporary_mb": (1, 1024 * 1024),
}
MAX_WHOLE_NUMBER = 2**53
# Limits that are not just any positive number. Those of callers stand as the edge has them (`edge/settings.py`).
_LIMIT_BOUNDS = {
    "message_max_bytes": (1024, 64 * MIB),
    "session_file_max_bytes": (1024, 1024 * MIB),
    "run_max_open_questions": (1, 10_000),
    "queue_max_turns": (1, 100_000),
    "upload_max_files": (1, 1000),
    "upload_file_max_bytes": (1, 1024 * 1024 * MIB),
    "upload_total_max_bytes": (1, 1024 * 1024 * MIB),
    "streams_per_conversation": (1, 10_000),
    "streams_per_process": (1, 1_000_000),
    "stream_buffer_bytes": (16 * 1024, 16 * MIB),
    "ticket_ttl_seconds": (1, 300),
    "session_ttl_seconds": (60, 30 * 86_400),
    "requests_per_second": (0, 1_000_000),
    "request_burst": (1, 1_000_000),
    "worker_uid_first": (10_000, 2**31),
    "worker_uid_count": (1, 1_000_000),
    "workspace_max_files": (100, 100_000_000),
}
_NUMBER_BOUNDS: dict[str, tuple[float | None, float]] = {
    "token_ttl_seconds": (1.0, 366 * 86_400.0),
    "ping_seconds": (0.01, MAX_NUMBER),
}
_WORKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def read_server(table: Table, host: str | None, port: int | None) -> ServerSettings:
    """`host` and `port` come from the command line and win; a loopback `public_url` then follows them."""
    file_host = table.text("host")
    file_port = table.integer("port", DEFAULT_PORT, least=0, most=65_535)
    public_url = table.text("public_url")
    cancel_on_disconnect = table.boolean("cancel_on_disconnect", True)
    table.finish()
    if public_url is not None:
        public_url = _checked_public_url(table, public_url)
    bound_host = host or file_host or DEFAULT_HOST
    bound_port = port if port is not None else file_port or 0
    moved = host is not None or port is not None
    if public_url is None or (moved and urlsplit(public_url).hostname in LOOPBACK_HOSTS):
        shown = _ANY_ADDRESS.get(bound_host, f"[{bound_host}]" if ":" in bound_host else bound_host)
        public_url = f"http://{shown}:{bound_port}"
    return ServerSettings(public_url, bound_host, bound_port, cancel_on_disconnect)


def _checked_public_url(table: Table, url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        table.fail("public_url", "must be like http://host:8787 or https://host, with nothing behind the host")
    return url.rstrip("/")


def read_timeouts(table: Table) -> TcpTimeouts:
    """The TCP part of `[database]`."""
    return TcpTimeouts(
        **{name: table.integer(name, None, least=1, most=86_400) for name in TcpTimeouts.__struct_fields__}
    )


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
        workers[name] = _worker(worker, name, folder)
        worker.finish()
    return workers


def _worker(worker: Table, name: str, folder: Path) -> WorkerType:
    if worker.boolean("remote", False):
        return _remote_worker(worker, name)
    sandbox = _sandbox(worker)
    warm = worker.integer("warm", 0, least=0, most=MAX_WARM) or 0
    if sandbox != "none" and warm:
        worker.fail("warm", "must be 0 with a sandbox, which is made for one conversation; drop one")
    network, dispatcher = _network(worker, sandbox)
    limits = {key: worker.integer(key, None, least=least, most=most) for key, (least, most) in _WORKER_BOUNDS.items()}
    return WorkerType(
        name=name,
        command=_command(worker, folder),
        zygote=worker.boolean("zygote", False),
        warm=warm,
        sandbox=sandbox,
        own_user=worker.boolean("own_user", False) if worker.raw("own_user") is not None else None,
        readable=_readable(worker, sandbox, folder),
        network=network,
        dispatcher=dispatcher,
        remote=False,
        **{key: value for key, value in limits.items() if value is not None},
    )


def _remote_worker(worker: Table, name: str) -> WorkerType:
    """The program, its limits and its sandbox are the other machine's to say."""
    for key in worker.names():
        if key not in ("remote", "reconnect_seconds"):
            worker.fail(key, "does not go with remote = true; it belongs into the lobu.toml of the worker's machine")
    grace = worker.integer("reconnect_seconds", 20, least=0, most=MAX_RECONNECT_SECONDS) or 0
    return WorkerType(name=name, command=(), remote=True, reconnect_seconds=float(grace))


def _network(worker: Table, sandbox: str) -> tuple[tuple[Destination, ...], bool]:
    """Where a sandboxed worker may connect to, and whether the dispatcher is among it."""
    found: list[Destination] = []
    dispatcher = False
    for key in ("network", "private_network"):
        for text in worker.texts(key) or ():
            if sandbox == "none":
                worker.fail(key, 'is a list for a sandbox, and this worker has none; set sandbox = "bwrap"')
            if text == DISPATCHER:
                dispatcher = True
                continue
            try:
                found.append(parse_destination(text, private=key == "private_network"))
            except ValueError as error:
                worker.fail(key, f'has the entry {text!r}: {error}; write it like "api.example.com:443"')
    return tuple(found), dispatcher


def _readable(worker: Table, sandbox: str, folder: Path) -> tuple[str, ...]:
    paths = [folder / text for text in worker.texts("readable") or ()]
    for path in paths:
        if sandbox == "none":
            worker.fail("readable", 'is a list for a sandbox, and this worker has none; set sandbox = "bwrap"')
        if not path.exists():
            worker.fail("readable", f"names {str(path)!r}, and there is no such file or folder")
        if path.resolve() == Path("/"):
            worker.fail("readable", "must not name the root folder; name what the worker needs")
    return tuple(os.path.abspath(path) for path in paths)


def _sandbox(worker: Table) -> str:
    sandbox = worker.text("sandbox") or "none"
    if sandbox not in SANDBOXES:
        worker.fail("sandbox", f"must be one of {', '.join(SANDBOXES)}")
    if sandbox != "none" and worker.boolean("zygote", False):
        worker.fail("zygote", f'does not go with sandbox = "{sandbox}": a fork shares what its zygote sees; drop one')
    return sandbox


def _command(worker: Table, folder: Path) -> tuple[str, ...]:
    command = worker.texts("command")
    if command is None:
        worker.lacks("command", 'has no command; add one, like command = ["python", "-m", "my_worker"]')
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
    """One of them is the default: the one that says so, else the first that is everybody's.

    `folder` is what relative paths of guardrails' programs are relative to.
    """
    agents: list[AgentConfig] = []
    for table in tables:
        agent = _agent(table, workers, folder)
        if any(agent.id == other.id for other in agents):
            table.fail("id", f"is {agent.id!r}, which another agent has already; rename one")
        others = [other.id for other in agents if other.default]
        if agent.default and others:
            table.fail("default", f"is true for a second agent ({others[0]!r} is the default already); keep one")
        agents.append(agent)
    if not any(agent.default for agent in agents):
        first = next((agent for agent in agents if agent.owner is None), None)
        agents = [attrs.evolve(agent, default=agent is first) for agent in agents]
    return tuple(agents)


def _agent(table: Table, workers: dict[str, WorkerType], folder: Path) -> AgentConfig:
    agent_id = table.text("id")
    worker = table.text("worker")
    agent = AgentConfig(
        id=agent_id or "",
        worker=worker or "",
        default=table.boolean("default", False),
        owner=table.text("owner"),
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
    if agent.owner is not None and not is_id(agent.owner):
        table.fail("owner", "must be letters, digits and `. _ : @ + -`, at most 128 of them")
    if agent.default and agent.owner is not None:
        table.fail("default", "is true for an agent with an owner; the default agent is everybody's")
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
            lowest, highest = _NUMBER_BOUNDS.get(field.name, (None, MAX_NUMBER))
            values[field.name] = table.number(field.name, default, least=lowest, most=highest)
    table.finish()
    limits = Limits(**values)
    if limits.host_renew_seconds * 2 + limits.host_margin_seconds > limits.host_ttl_seconds:
        table.fail(
            "host_ttl_seconds" if "host_ttl_seconds" in table else None,
            "must leave room for two renewals: at least 2 * host_renew_seconds + host_margin_seconds",
        )
    if limits.worker_uid_count < limits.max_workers:
        table.fail(None, "has fewer uids for workers (worker_uid_count) than workers (max_workers); raise the first")
    if limits.workspace_max_bytes < limits.session_file_max_bytes + limits.upload_total_max_bytes:
        table.fail(
            "workspace_max_bytes" if "workspace_max_bytes" in table else None,
            "must leave room for what a turn begins with: at least session_file_max_bytes + upload_total_max_bytes",
        )
    if limits.upload_file_max_bytes > limits.upload_total_max_bytes:
        table.fail(None, "has upload_file_max_bytes above upload_total_max_bytes; raise the second")
    return limits
