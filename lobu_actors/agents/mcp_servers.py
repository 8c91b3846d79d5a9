"""Which MCP servers a worker type has: the JSON file that other programs use too, `{"mcpServers": {name: …}}`. Pure.

Owns the file's form. It is named on the worker type's command line and nowhere else, so that no agent's settings can
make a worker run a program.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")


@dataclass(frozen=True)
class ServerCommand:
    """How one server is started. `env` is added to the little that it gets of the worker's environment."""

    command: str
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> dict[str, ServerCommand]:
    """Raises ValueError with a sentence's end."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    servers = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(servers, dict):
        raise ValueError("has no table `mcpServers`")
    return {name: _server(name, server) for name, server in servers.items()}


def _server(name: str, server: Any) -> ServerCommand:
    if not _NAME.match(name):
        raise ValueError(f"names a server {name!r}; use 1 to 32 letters, digits, `_` and `-`")
    if not isinstance(server, dict) or not isinstance(server.get("command"), str):
        raise ValueError(f"gives the server {name!r} no `command`; only servers over stdio are supported")
    args, env = server.get("args", []), server.get("env", {})
    if not isinstance(args, list) or not all(isinstance(item, str) for item in args):
        raise ValueError(f"gives the server {name!r} `args` that are no list of strings")
    if not isinstance(env, dict) or not all(isinstance(item, str) for item in env.values()):
        raise ValueError(f"gives the server {name!r} an `env` that is no table of strings")
    return ServerCommand(server["command"], args, env)
