"""The client's side of the protocol: what the agent tells goes to the turn that runs, what it asks to the person.

Owns the mapping of updates. Nothing of it is kept: the turn's text is the SDK's. It offers the agent neither files nor
terminals: the agent runs where the workspace is.
"""

import asyncio
import time
from typing import Any

from acp import schema
from acp.exceptions import RequestError

from lobu_actors.worker import Turn

STATUS_SECONDS = 1.0  # between two equal statuses
_RUNNING = ("pending", "in_progress", None)
MAX_TITLE_CHARS = 200
MAX_ASKED_CHARS = 2000


class Client:
    """What the agent sees of us; `turn` is the one that runs, if any."""

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.said: list[str] = []
        self.did_something = False
        self._tools: dict[str, str] = {}  # that run, by call
        self._gap = False
        self._status: tuple[str, float] = ("", 0.0)
        self._asking: set[asyncio.Task[str]] = set()
        self._is_cancelled = False

    def begin(self, turn: Turn) -> None:
        self.turn, self.said, self.did_something = turn, [], False
        self._tools, self._gap, self._status, self._is_cancelled = {}, False, ("", 0.0), False

    def cancel(self) -> None:
        """What waits for an answer is told that there will be none, as the protocol demands."""
        self._is_cancelled = True
        for asking in self._asking:
            asking.cancel()

    @property
    def in_tool(self) -> bool:
        return bool(self._tools)

    def end(self) -> None:
        self.cancel()
        self.turn = None

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        if self.turn is None:
            return  # a session that is loaded tells all that was said in it
        match update:
            case schema.AgentMessageChunk(content=schema.TextContentBlock(text=text)):
                self._say(text)
            case schema.AgentThoughtChunk():
                self._show("thinking")
            case schema.ToolCallStart():
                self._tool(update.tool_call_id, update.title, update.status)
            case schema.ToolCallProgress():
                self._tool(update.tool_call_id, update.title, update.status)
            case schema.AgentPlanUpdate():
                now = [entry.content for entry in update.entries if entry.status == "in_progress"]
                self._show(now[0][:MAX_TITLE_CHARS] if now else "planning")

    async def request_permission(
        self, session_id: str, tool_call: schema.ToolCallUpdate, options: list[schema.PermissionOption], **_: Any
    ) -> schema.RequestPermissionResponse:
        none = schema.RequestPermissionResponse(outcome=schema.DeniedOutcome(outcome="cancelled"))
        if self.turn is None or self._is_cancelled or not options:
            return none
        names = _distinct([option.name for option in options])
        asking = asyncio.create_task(self.turn.ask(_asked(tool_call), names))
        self._asking.add(asking)
        try:
            answer = await asking
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return none
        finally:
            self._asking.discard(asking)
        chosen = next((option for option, name in zip(options, names, strict=True) if name == answer), None)
        if chosen is None:  # only what was offered counts as consent
            refusals = [option for option in options if option.kind.startswith("reject")]
            if not refusals:
                return none
            chosen = refusals[0]
        return schema.RequestPermissionResponse(
            outcome=schema.AllowedOutcome(outcome="selected", option_id=chosen.option_id)
        )

    async def write_text_file(self, **_: Any) -> None:
        raise RequestError.method_not_found("fs/write_text_file")

    async def read_text_file(self, **_: Any) -> schema.ReadTextFileResponse:
        raise RequestError.method_not_found("fs/read_text_file")

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """What an agent tells its own clients is none of ours."""

    def on_connect(self, conn: Any) -> None:
        """Required by the package."""

    def _say(self, text: str) -> None:
        if not text or self.turn is None:
            return
        if self._gap and self.said:
            text = f"\n\n{text}"
        self._gap = False
        self.said.append(text)
        self.turn.write(text)

    def _tool(self, call_id: str, title: str | None, status: str | None) -> None:
        self.did_something = self._gap = True
        if status in _RUNNING:
            name = (title or self._tools.get(call_id) or "a tool")[:MAX_TITLE_CHARS]
            if self._tools.get(call_id) != name and self.turn is not None:
                self._tools[call_id] = name
                self.turn.status(f"running {name}", phase="tool", tool=name)
        elif self._tools.pop(call_id, None) is not None and not self._tools and self.turn is not None:
            self.turn.status("thinking", phase="model")

    def _show(self, status: str) -> None:
        """Progress is told once a second at most, unless it is news."""
        now = time.monotonic()
        if self.turn is None or self._tools or (status == self._status[0] and now - self._status[1] < STATUS_SECONDS):
            return
        self._status = status, now
        self.turn.status(status, phase="model")


def _asked(call: schema.ToolCallUpdate) -> str:
    """What the person is asked, with the command or the like if the title does not tell it."""
    title = (call.title or "a tool")[:MAX_TITLE_CHARS]
    command = call.raw_input.get("command") if isinstance(call.raw_input, dict) else None
    command = " ".join(map(str, command)) if isinstance(command, list) else command
    if isinstance(command, str) and command not in title:
        title = f"{title}\n\n{command[:MAX_ASKED_CHARS]}"
    return f"May the agent go on? {title}"


def _distinct(names: list[str]) -> list[str]:
    """Two options of one name could not be told apart."""
    found: list[str] = []
    for name in names:
        number = 1
        shown = name
        while shown in found:
            number += 1
            shown = f"{name} ({number})"
        found.append(shown)
    return found
