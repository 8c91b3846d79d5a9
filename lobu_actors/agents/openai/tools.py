"""The tools of MCP servers: started when a turn first needs them, kept between turns, ended with a cancelled call.

Owns the servers' processes. Each server has a task of its own in which its connection is opened and closed, because the
`mcp` package demands that both happen in one task while turns are tasks that come and go. That task is the parent of
all that the connection needs; `Toolbox` holds it, and learns of its failure when the server is next asked for.

A server gets no more of the worker's environment than paths and the mark by which a spawner finds what a worker left
behind: the provider's key is not for tools.
"""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lobu_actors.agents.mcp_servers import ServerCommand
from lobu_actors.agents.openai.dialect import Call
from lobu_actors.agents.openai.history import arguments_of
from lobu_actors.worker import Fail

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

Json = dict[str, Any]
START_FAILED = "TOOL_SERVER_FAILED"
UNKNOWN_SERVER = "TOOL_SERVER_UNKNOWN"
PASSED_ON = ("PATH", "LANG", "HOME", "WORKSPACE_DIR", "LOBU_WORKER_ID")
MAX_NAME_CHARS = 64  # of a function, as providers take it
MAX_PAGES = 100  # of a server's list of tools
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class Result:
    text: str
    is_error: bool = False


class Toolbox:
    """All servers of one worker."""

    def __init__(self, commands: Mapping[str, ServerCommand]) -> None:
        self._commands = commands
        self._running: dict[str, _Server] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._places: dict[str, tuple[str, str]] = {}  # function -> server, tool
        self._taken: set[str] = set()

    async def offer(self, names: list[str] | None, start_seconds: float, taken: set[str]) -> list[Json]:
        """The tools of these servers as a request carries them; all servers for None. Raises Fail.

        `taken`: names that others have.
        """
        self._places = {}
        self._taken = taken
        offered: list[Json] = []
        for name in self._commands if names is None else names:
            if name not in self._commands:
                known = ", ".join(self._commands) or "none"
                raise Fail(UNKNOWN_SERVER, f"The agent wants the MCP server `{name}`; its worker type has {known}.")
            server = await self._get(name, start_seconds)
            offered += [self._function(name, tool) for tool in server.tools]
        return offered

    async def call(self, call: Call, *, start_seconds: float, max_chars: int) -> Result:
        """What the tool said, or why it could not be asked, for the model to read. Raises nothing of a tool's."""
        place, arguments = self._places.get(call.name), arguments_of(call.arguments)
        if place is None:
            return Result(f"There is no tool `{call.name}`.", is_error=True)
        if arguments is None:
            return Result("The arguments are no JSON object.", is_error=True)
        name, tool = place
        try:
            server = await self._get(name, start_seconds)
            found = await server.client.call_tool(tool, arguments)
        except asyncio.CancelledError:
            self._discard(name)  # a tool need not listen; its process ends all the same
            raise
        except Fail as failure:
            return Result(failure.message, is_error=True)
        except Exception as error:
            if not _is_answer(error):
                self._discard(name)
            return Result(f"The tool failed: {error}"[:max_chars], is_error=True)
        text = text_of(found)
        if len(text) > max_chars:
            text = f"{text[:max_chars]}\n[cut: {len(text) - max_chars} characters more]"
        return Result(text, bool(found.is_error))

    async def _get(self, name: str, start_seconds: float) -> "_Server":
        server = self._running.get(name)
        if server is None or server.task.done():
            server = self._running[name] = _Server(self._commands[name])
        try:
            async with asyncio.timeout(start_seconds):
                await asyncio.shield(server.ready)
        except TimeoutError:
            self._discard(name)
            raise Fail(START_FAILED, f"The MCP server `{name}` was not ready within {start_seconds:g} s.") from None
        except asyncio.CancelledError:
            self._discard(name)
            raise
        except Exception as error:
            self._discard(name)
            raise Fail(START_FAILED, f"The MCP server `{name}` could not be started: {_reason(error)}") from error
        return server

    def _discard(self, name: str) -> None:
        """Have it end, within the bounds of the `mcp` package: 2 s on its own, 2 s after SIGTERM, then SIGKILL."""
        server = self._running.pop(name, None)
        if server is not None:
            self._ending.add(server.task)
            server.task.add_done_callback(self._ending.discard)
            server.task.cancel()

    def _function(self, server: str, tool: "Tool") -> Json:
        base = _UNFIT.sub("_", f"{server}__{tool.name}")[:MAX_NAME_CHARS]
        name, number = base, 1
        while name in self._places or name in self._taken:
            number += 1
            name = f"{base[: MAX_NAME_CHARS - 4]}_{number}"
        self._places[name] = (server, tool.name)
        function = {"name": name, "description": tool.description or "", "parameters": tool.input_schema}
        return {"type": "function", "function": function}


class _Server:
    """One server's process and connection. `ready` has the failure when it does not come up."""

    client: "Client"
    tools: "list[Tool]"

    def __init__(self, command: ServerCommand) -> None:
        self._command = command
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            from mcp import Client, StdioServerParameters

            passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            parameters = StdioServerParameters(
                command=self._command.command, args=self._command.args, env=passed_on | self._command.env
            )
            async with Client(parameters) as client:
                self.client = client
                self.tools = await _list_tools(client)
                self.ready.set_result(None)
                await asyncio.get_running_loop().create_future()  # until it is cancelled
        except asyncio.CancelledError:
            self.ready.cancel()
        except Exception as error:
            if self.ready.done():
                print(f"an MCP server ended with {_reason(error)}", file=sys.stderr)  # the log; the next call finds out
            else:
                self.ready.set_exception(error)


async def _list_tools(client: "Client") -> "list[Tool]":
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def text_of(result: "CallToolResult") -> str:
    """A tool's result as text: what is none is named, so that the model knows that there was something."""
    pieces: list[str] = []
    for block in result.content:
        resource = getattr(block, "resource", None)
        text = getattr(block, "text", None) or getattr(resource, "text", None)
        pieces.append(text if isinstance(text, str) else f"[{block.type}: {getattr(block, 'uri', 'not shown')}]")
    return "\n".join(pieces)


def _is_answer(error: Exception) -> bool:
    """Whether a server that lives said no, and not the connection."""
    from mcp.shared.exceptions import MCPError
    from mcp.types import CONNECTION_CLOSED

    return isinstance(error, MCPError) and error.error.code != CONNECTION_CLOSED


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{error or type(error).__name__}"[:300]
