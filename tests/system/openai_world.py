"""A `lobu run` with agents of the worker type `openai`, and the stand-in provider that it is pointed at.

The run is one for all tests of a module; the provider is each test's own, at the same address, and each test has
conversations of its own, so workers of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from lobu_actors.contract.ids import new_id
from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.fakes.model_provider import KEY, ModelProvider, Request
from tests.system.lobu_process import LobuRun, free_port, until
from tests.system.sse_client import Client, Conversation, Frame, Transcript

ROOT = Path(__file__).parents[2]
MCP_SERVER = ROOT / "tests" / "workers" / "mcp_tools.py"
QUICK = "{ first_output_seconds = 1, progress_seconds = 1, tool_seconds = 1, startup_seconds = 60 }"
SLOW = "{ startup_seconds = 60 }"
PROMPT = "You are a test."


@attrs.define
class World:
    run: LobuRun
    port: int
    provider: ModelProvider = attrs.field(factory=ModelProvider)

    async def open(self, agent: str, **fields: object) -> Conversation:
        return await Client(self.run.url, self.run.admin_key).open(agentId=agent, **fields)

    def worker_of(self, conversation: Conversation) -> object:
        """The pid of the worker of its newest run."""
        query = f"SELECT worker_pid FROM run WHERE conversation_id = '{conversation.key}' ORDER BY run_id DESC LIMIT 1"
        return admin(self.run.database_url, query)[0][0]

    async def asked(self, command: str, seconds: float = 30.0) -> Request:
        """The newest request with this command, once it came."""
        with trio.fail_after(seconds):
            while True:
                for request in reversed(self.provider.requests):
                    if request.command == command:
                        return request
                await trio.sleep(0.01)


class Reader:
    """Follows a conversation from before the message, so that no status is missed."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.transcript = Transcript()
        self.message_id = ""

    async def tell(self, content: str) -> tuple[Frame, list[str]]:
        """The terminal event of a message, and the statuses that were shown before it."""
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.transcript.follow, self.conversation, self.is_over)
                await until(lambda: self.transcript.connections, "the reader is connected")
                self.message_id = new_id()  # known before: its end may be told before its receipt
                await self.conversation.send(content, self.message_id)
        assert self.transcript.faults == []
        statuses = [frame.data["status"] for frame in self.transcript.frames if frame.event == "status"]
        return self.transcript.terminals[self.message_id], statuses

    @property
    def text(self) -> str:
        """What was streamed so far."""
        return self.transcript.texts.get(self.message_id, "")

    def is_over(self) -> bool:
        return bool(self.message_id) and self.message_id in self.transcript.terminals


async def tell(conversation: Conversation, content: str) -> tuple[Frame, list[str]]:
    return await Reader(conversation).tell(content)


def config(folder: Path) -> str:
    """`folder` gets the file of MCP servers."""
    file = folder / "mcp.json"
    server = {"command": sys.executable, "args": [str(MCP_SERVER)], "env": {"GIVEN": "for the tool"}}
    broken = {"command": sys.executable, "args": ["-c", "import time; time.sleep(1000)"]}
    file.write_text(json.dumps({"mcpServers": {"tools": server, "broken": broken}}))
    command = '"python", "-m", "lobu_actors.agents.openai"'
    prompt = f'system_prompt = "{PROMPT}", retry_seconds = 0.05, retry_max_seconds = 2'
    return f"""
[limits]
cancel_grace_seconds = 30
[workers.plain]
command = [{command}]
[workers.tools]
command = [{command}, "--mcp", "{file}"]
[workers.forked]
command = [{command}, "--mcp", "{file}"]
zygote = true
[[agents]]
id = "plain"
worker = "plain"
default = true
model = "openai/test-model"
settings = {{ {prompt}, parameters = {{ temperature = 0.5 }} }}
deadlines = {SLOW}
[[agents]]
id = "tools"
worker = "tools"
model = "test-model"
settings = {{ {prompt}, mcp = ["tools"], max_steps = 4, tool_result_chars = 50000 }}
deadlines = {SLOW}
[[agents]]
id = "forked"
worker = "forked"
model = "test-model"
settings = {{ {prompt}, mcp = ["tools"] }}
deadlines = {SLOW}
[[agents]]
id = "quick"
worker = "plain"
model = "openai/test-model"
deadlines = {QUICK}
[[agents]]
id = "quick-after-output"
worker = "plain"
model = "openai/test-model"
deadlines = {{ progress_seconds = 2, startup_seconds = 60 }}
[[agents]]
id = "quick-after-refusal"
worker = "plain"
model = "openai/test-model"
settings = {{ retry_seconds = 0.05 }}
deadlines = {{ first_output_seconds = 4, startup_seconds = 60 }}
[[agents]]
id = "quick-thoughts"
worker = "plain"
model = "openai/test-model"
deadlines = {{ first_output_seconds = 6, progress_seconds = 6, startup_seconds = 60 }}
[[agents]]
id = "quick-tools"
worker = "tools"
model = "openai/test-model"
settings = {{ mcp = ["tools"] }}
deadlines = {{ tool_seconds = 1, startup_seconds = 60 }}
[[agents]]
id = "broken-tools"
worker = "tools"
model = "openai/test-model"
settings = {{ mcp = ["broken"], tool_start_seconds = 1 }}
deadlines = {SLOW}
[[agents]]
id = "unknown-tools"
worker = "tools"
model = "openai/test-model"
settings = {{ mcp = ["elsewhere"] }}
deadlines = {SLOW}
[[agents]]
id = "no-model"
worker = "plain"
[[agents]]
id = "wrong"
worker = "plain"
model = "m"
settings = {{ max_steps = 0 }}
"""


def sandboxed(folder: Path, port: int) -> str:
    """A worker type in a sandbox, from which a proxy leads to the provider."""
    return f"""
[workers.sandboxed]
command = ["python", "-m", "lobu_actors.agents.openai", "--mcp", "{folder / "mcp.json"}"]
sandbox = "bwrap"
readable = ["{folder / "mcp.json"}", "{ROOT}"]
private_network = ["127.0.0.1:{port}"]
[[agents]]
id = "sandboxed"
worker = "sandboxed"
model = "test-model"
settings = {{ mcp = ["tools"] }}
deadlines = {SLOW}
"""


@contextmanager
def running(
    server: EmbeddedServer, template: str, name: str, *, start: bool = True, sandbox: bool = False
) -> Iterator[World]:
    """For a fixture of module scope, or a test that starts it itself; `name`: of a database of its own."""
    folder, port = Path(tempfile.mkdtemp(prefix="lobu-system-")), free_port()
    admin(server.url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    environment = {"WORKER_ENV_OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "WORKER_ENV_OPENAI_API_KEY": KEY}
    text = config(folder) + (sandboxed(folder, port) if sandbox else "")
    run = LobuRun(folder, config=text, database_url=url_of(server, name), environment=environment)
    try:
        if start:
            trio.run(run.start)
        yield World(run, port)
    finally:
        if start:
            trio.run(run.kill_all)
        shutil.rmtree(folder, ignore_errors=True)
        admin(server.url, f"DROP DATABASE {name} WITH (FORCE)")
