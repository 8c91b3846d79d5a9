"""A turn with an agent of the Agent Client Protocol: started, a session opened, prompted, cancelled.

Owns the agent from turn to turn, and what it knows of the conversation. The session file that lasts has the messages'
texts and the name of the agent's session. A new agent is asked to load that session, which it can on the host where it
kept it; where it cannot, it is given a new one and told what was said. A message that is tried again is never given to
a session that may have it already.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from acp import PROTOCOL_VERSION, connect_to_agent, text_block
from acp.client.connection import ClientSideConnection
from acp.exceptions import RequestError
from acp.schema import ClientCapabilities, EnvVariable, McpServerStdio, PromptResponse

from lobu_actors.agents.acp import outcome
from lobu_actors.agents.acp.client import Client
from lobu_actors.agents.acp.settings import Settings, read
from lobu_actors.agents.briefing import briefed
from lobu_actors.agents.mcp_servers import ServerCommand
from lobu_actors.agents.program import NOT_STARTED, Program
from lobu_actors.worker import Fail, Turn, crash

UNKNOWN_SERVER = "TOOL_SERVER_UNKNOWN"
SESSION = "lobu-acp-session"  # what is kept of it
Json = dict[str, Any]


class Agent:
    """What lives as long as the worker."""

    def __init__(self, command: Sequence[str], servers: Mapping[str, ServerCommand]) -> None:
        self._command = command
        self._name = os.path.basename(command[0])
        self._servers = servers
        self._client: Any = Client()  # the package's own type has methods that only matter to other clients
        self._connection: ClientSideConnection | None = None
        self._session_id = ""
        self._knows = False  # the agent has the conversation in its session
        self._instructions = ""  # of the client, as the agent was told them

    async def reply(self, turn: Turn) -> None:
        settings = read(turn.settings)
        if self._connection is None:
            await self._open(turn, settings)
        assert self._connection is not None
        news: Json = {} if self._knows else {"history": turn.history(), "summary": turn.summary}
        if turn.instructions != self._instructions:
            news["instructions"] = turn.instructions
        content = briefed(turn.content, **news)
        self._client.begin(turn)
        try:
            failure = await self._prompt(self._connection, content, settings.failure_pattern)
        finally:
            self._client.end()
        self._knows, self._instructions = True, turn.instructions
        if failure is not None:
            raise failure
        turn.keep(SESSION, {"agent": self._name, "sessionId": self._session_id})

    async def _open(self, turn: Turn, settings: Settings) -> None:
        """Raises Fail, with nothing left running."""
        servers = self._mcp_servers(settings)
        link = _Link(await Program.start(self._name, self._command, {}, turn.workspace))
        connection = connect_to_agent(self._client, link, use_unstable_protocol=True)
        try:
            async with asyncio.timeout(settings.start_seconds):
                await self._open_session(connection, link, turn, settings, servers)
        except BaseException as error:
            await connection.close()
            if isinstance(error, RequestError):
                print(f"{self._name} refused the session: {error.code} {error} {error.data}"[:2000], flush=True)
                raise outcome.failure_of_error(error.code, str(error), error.data) from None
            if isinstance(error, ConnectionError):
                raise link.failure or Fail(NOT_STARTED, f"{self._name} closed the connection; see the log.") from None
            if isinstance(error, TimeoutError):
                raise Fail(NOT_STARTED, f"{self._name} was not ready in {settings.start_seconds:g} s.") from None
            raise
        self._connection = connection

    async def _open_session(
        self, connection: ClientSideConnection, link: "_Link", turn: Turn, settings: Settings, servers: list[Any]
    ) -> None:
        capabilities = ClientCapabilities()
        found = await connection.initialize(protocol_version=PROTOCOL_VERSION, client_capabilities=capabilities)
        link.program.has_started()
        if settings.auth_method:
            await connection.authenticate(method_id=settings.auth_method)
        can_load = found.agent_capabilities is not None and found.agent_capabilities.load_session
        before = _session_id(turn.kept(SESSION), self._name)
        self._knows = False
        if can_load and before and turn.attempt == 1:
            try:
                await connection.load_session(cwd=turn.workspace, session_id=before, mcp_servers=servers)
                self._session_id, self._knows = before, True
            except RequestError as error:
                print(f"{self._name} does not know the session {before} here: {error}"[:1000], flush=True)
        if not self._knows:
            new = await connection.new_session(cwd=turn.workspace, mcp_servers=servers)
            self._session_id = new.session_id
        if settings.mode:
            await connection.set_session_mode(session_id=self._session_id, mode_id=settings.mode)

    async def _prompt(self, connection: ClientSideConnection, content: str, failure_pattern: str) -> Fail | None:
        prompt = asyncio.create_task(connection.prompt(session_id=self._session_id, prompt=[text_block(content)]))
        try:
            answer = await asyncio.shield(prompt)
        except asyncio.CancelledError:
            self._client.cancel()
            await connection.cancel(session_id=self._session_id)
            in_tool = self._client.in_tool
            await asyncio.wait([prompt])  # that it does not end in time is for the supervisor to see
            prompt.exception()
            if in_tool:  # codex, for one, lets the command run on; with this worker all of it ends
                crash(f"{self._name} was cancelled while it used a tool")
            raise
        except RequestError as error:
            print(f"{self._name} reports: {error.code} {error} {error.data}"[:2000], flush=True)
            return outcome.failure_of_error(error.code, str(error), error.data)
        assert self._client.turn is not None
        self._client.turn.usage = _usage(answer)
        said = "".join(self._client.said)
        failure = outcome.failure_of_stop(answer.stop_reason, said, self._client.did_something, failure_pattern)
        if failure is not None:
            print(f"{self._name} ended its turn with {answer.stop_reason}", flush=True)
        return failure

    def _mcp_servers(self, settings: Settings) -> list[Any]:
        found: list[Any] = []
        for name in self._servers if settings.mcp is None else settings.mcp:
            if name not in self._servers:
                known = ", ".join(self._servers) or "none"
                raise Fail(UNKNOWN_SERVER, f"The agent wants the MCP server `{name}`; its worker type has {known}.")
            server = self._servers[name]
            env = [EnvVariable(name=key, value=value) for key, value in server.env.items()]
            found.append(McpServerStdio(name=name, command=server.command, args=server.args, env=env))
        return found


class _Link:
    """The program's lines as the package wants its messages."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.failure: Fail | None = None

    async def send(self, message: Json) -> None:
        await self.program.send(message)

    async def receive(self) -> Json | None:
        try:
            return await self.program.receive()
        except Fail as failure:
            self.failure = failure
            return None

    async def close(self) -> None:
        await self.program.close()


def _session_id(kept: list[Any], agent: str) -> str | None:
    """The newest, if it is of this agent: another one's says nothing to it."""
    newest = kept[-1] if kept else None
    if isinstance(newest, dict) and newest.get("agent") == agent and isinstance(newest.get("sessionId"), str):
        return str(newest["sessionId"])
    return None


def _usage(answer: PromptResponse) -> Json | None:
    usage = answer.usage
    if usage is None:
        return None
    values = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "cachedInputTokens": usage.cached_read_tokens,
        "reasoningTokens": usage.thought_tokens,
    }
    return {name: value for name, value in values.items() if isinstance(value, int)} or None
