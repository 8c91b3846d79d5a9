"""How a message is sent in each of the other protocols, and an owner that answers what was accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import httpx
import pytest

from lobu_actors.store.records import Turn
from tests.fakes.dialect_readers import READERS, Outcome
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.gateway import Owner
from tests.fakes.http_server import EventReader, Running


@attrs.frozen
class Dialect:
    """How a message is sent in it: path, body and headers for a conversation's name."""

    name: str
    path: str
    body: Callable[[str, str | None], dict[str, Any]]
    named_in: str = "body"

    def request(self, text: str, name: str | None, key: str | None = None) -> dict[str, Any]:
        headers = {"X-Lobu-Conversation": name} if name and self.named_in == "header" else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        return {"json": self.body(text, name), "headers": headers}


def user_message(text: str) -> list[dict[str, Any]]:
    return [{"id": f"u-{text}", "role": "user", "content": text, "parts": [{"type": "text", "text": text}]}]


CHAT = Dialect(
    "chat",
    "/v1/chat/completions",
    lambda text, _: {"model": "echo", "stream": True, "messages": [{"role": "user", "content": text}]},
    "header",
)
RESPONSES = Dialect(
    "responses", "/v1/responses", lambda text, _: {"model": "echo", "stream": True, "input": text}, "header"
)
UI = Dialect("ui", "/api/v1/ui/echo/chat", lambda text, name: {"id": name or "chat", "messages": user_message(text)})
AG_UI = Dialect(
    "ag-ui",
    "/api/v1/ag-ui/echo",
    lambda text, name: {"threadId": name or "thread", "runId": f"run-{text}", "messages": user_message(text)},
)
DIALECTS = [CHAT, RESPONSES, UI, AG_UI]
each = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def replying(world: EdgeWorld, script: Callable[[Owner, Turn], Awaitable[None]] | None = None) -> list[Turn]:
    """Have each accepted turn run at once; gives the list that they come into."""
    turns: list[Turn] = []

    async def run(turn: Turn) -> None:
        turns.append(turn)
        owner = await Owner.of(world.store, world.gateway.feeds, turn.ref)
        if script is not None:
            await script(owner, turn)
            return
        await owner.begin(turn)
        owner.say(f"you said {turn.content}")
        await owner.end(turn)

    world.gateway.on_accepted = run
    return turns


async def hang_up_behind(text: bytes, server: Running, dialect: Dialect, name: str) -> None:
    reader = await EventReader.post(server, dialect.path, dialect.body("hi", name), f"X-Lobu-Conversation: {name}")
    await reader.until(text)
    await reader.close()


async def send(client: httpx.AsyncClient, dialect: Dialect, text: str, name: str | None = None, **more: Any) -> Outcome:
    answer = await client.post(dialect.path, **dialect.request(text, name, **more))
    assert answer.status_code == 200, answer.text
    return READERS[dialect.name](answer.content)
