"""An agent of the Agent Client Protocol, made with the official package, for tests that run without a real one.

It keeps its sessions in files below HOME and loads them, prints what is no JSON, asks before each `!ask`, and does what
stands in the message, a command a line (see `Agent._step`). `--forgetful`: it cannot load a session.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from acp import run_agent, start_tool_call, text_block, update_agent_message, update_agent_thought, update_tool_call
from acp.exceptions import RequestError
from acp.schema import (
    AgentCapabilities,
    InitializeResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PermissionOption,
    PromptResponse,
    ToolCallUpdate,
    Usage,
)

SESSIONS = Path(os.environ["HOME"]) / ".fake"


class Agent:
    def __init__(self) -> None:
        self.told: dict[str, list[str]] = {}
        self.prompt_task: asyncio.Task[str] | None = None
        self.shell: asyncio.subprocess.Process | None = None

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> InitializeResponse:
        print("not a line of the protocol\n[1]\n", flush=True)
        capabilities = AgentCapabilities(load_session="--forgetful" not in sys.argv)
        return InitializeResponse(protocol_version=1, agent_capabilities=capabilities)

    async def new_session(self, **_: Any) -> NewSessionResponse:
        if "--locked" in sys.argv:
            raise RequestError.auth_required()
        session_id = str(uuid.uuid4())
        self.told[session_id] = []
        return NewSessionResponse(session_id=session_id)

    async def load_session(self, session_id: str, **_: Any) -> LoadSessionResponse:
        file = SESSIONS / session_id
        if not file.exists():
            raise RequestError.resource_not_found(session_id)
        self.told[session_id] = json.loads(file.read_text())
        for text in self.told[session_id]:
            await self.client.session_update(session_id, update_agent_message(text_block(text)))
        return LoadSessionResponse()

    async def cancel(self, session_id: str, **_: Any) -> None:
        if self.prompt_task is not None:
            self.prompt_task.cancel()

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> PromptResponse:
        text = "".join(block.text for block in prompt)
        self.prompt_task = asyncio.create_task(self._turn(session_id, text))
        try:
            stop = await self.prompt_task
        except asyncio.CancelledError:
            if self.shell is not None:
                self.shell.kill()
            stop = "cancelled"
        self.told[session_id].append(text)
        SESSIONS.mkdir(exist_ok=True)
        (SESSIONS / session_id).write_text(json.dumps(self.told[session_id]))
        usage = Usage(total_tokens=15, input_tokens=10, output_tokens=2, cached_read_tokens=3)
        return PromptResponse(stop_reason=stop, usage=usage)

    async def _turn(self, session: str, text: str) -> str:
        self.result = ""
        before, _, new = text.rpartition("The new message:\n\n")
        if before:
            self.told[session].append(before)
        lines = new.split("\n")
        while lines:
            stop = await self._step(session, lines.pop(0))
            if stop is not None:
                return stop
        return "end_turn"

    async def _step(self, session: str, line: str) -> str | None:
        """Why the turn is over with it, if it is."""
        verb, _, rest = line.partition(" ")
        words = rest.split()
        match verb:
            case "!tool":
                await self._bash(session, json.loads(rest.partition(" ")[2])["command"], ask=False)
                return None
            case "!ask":
                await self._bash(session, rest, ask=True)
                return None
            case "!slow":
                for number in range(int(words[1])):
                    await self._say(session, f" w{number}" if number else "w0")
                    await asyncio.sleep(float(words[0]))
            case "!status":
                raise RequestError(-32603, "Internal error", {"details": f"{words[0]} {' '.join(words[1:])}"})
            case "!once":
                await self.client.session_update(session, update_agent_thought(text_block("again")))
                await self._say(session, "recovered")
            case "!cut":
                await self._say(session, rest)
                raise RequestError(-32603, "terminated")
            case "!hang":
                await asyncio.sleep(1000)
            case "!stop":
                await self._say(session, " ".join(words[1:]))
                return words[0]
            case "!exit":
                os._exit(int(words[0]))
            case "!said":
                await self._say(session, self.result)
            case "!seen":
                await self._say(session, "seen" if rest in json.dumps(self.told[session]) else "not seen")
            case "!where":
                await self._say(session, json.dumps({"env": dict(os.environ), "cwd": os.getcwd()}))
            case _:
                await self._say(session, rest if verb == "!say" else line)
        return "end_turn"

    async def _say(self, session: str, text: str) -> None:
        self.told[session].append(text)
        await self.client.session_update(session, update_agent_message(text_block(text)))

    async def _bash(self, session: str, command: str, *, ask: bool) -> None:
        call = uuid.uuid4().hex
        raw = {"command": command}
        started = start_tool_call(call, "run a command", kind="execute", status="pending", raw_input=raw)
        await self.client.session_update(session, started)
        if ask and not await self._may(session, call, raw):
            self.result = "refused"
            await self.client.session_update(session, update_tool_call(call, status="failed"))
            return
        self.shell = await asyncio.create_subprocess_exec(
            "bash", "-c", command, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        said, _ = await self.shell.communicate()
        self.result = said.decode()
        await self.client.session_update(session, update_tool_call(call, status="completed"))

    async def _may(self, session: str, call: str, raw: dict[str, str]) -> bool:
        options = [
            PermissionOption(option_id="once", name="Allow", kind="allow_once"),
            PermissionOption(option_id="ever", name="Allow", kind="allow_always"),
            PermissionOption(option_id="no", name="Reject", kind="reject_once"),
        ]
        asked = ToolCallUpdate(tool_call_id=call, title="run a command", raw_input=raw)
        answer = await self.client.request_permission(session_id=session, tool_call=asked, options=options)
        return answer.outcome.outcome == "selected" and answer.outcome.option_id in ("once", "ever")


if __name__ == "__main__":
    if "--broken" in sys.argv:
        raise SystemExit("no configuration")
    asyncio.run(run_agent(Agent()))
