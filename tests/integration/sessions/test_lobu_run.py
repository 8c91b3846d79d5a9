"""Sessions in a real `lobu run`: history before and after it is gone, resets, posted snapshots, the session store."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from tests.system.lobu_process import LobuRun, free_port, lobu_run
from tests.system.sse_client import Client, Conversation

POSTING = Path(__file__).parents[2] / "workers" / "posting.py"
CONFIG = f"""
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.posting]
command = ["{sys.executable}", "{POSTING}"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "posting"
worker = "posting"
"""


@pytest.fixture
async def start(database_url: str) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def run(**environment: str) -> LobuRun:
            port = free_port()
            variables = {"WORKER_ENV_EDGE_URL": f"http://127.0.0.1:{port}", **environment}
            options = {"config": CONFIG, "database_url": database_url, "arguments": ("--port", str(port))}
            return await stack.enter_async_context(lobu_run(environment=variables, **options))

        yield run


def client_of(run: LobuRun) -> Client:
    return Client(run.url, run.admin_key)


async def ask(conversation: Conversation, content: str) -> str:
    frame = await conversation.ask(content)
    assert frame.event == "complete", frame
    return str(frame.data["finalText"])


async def get(conversation: Conversation, tail: str) -> dict[str, Any]:
    answer = await conversation.client.call("GET", f"{conversation.path}/session/{tail}")
    assert answer.status == 200, answer
    return answer.body


def texts(body: dict[str, Any]) -> list[str]:
    return [message["content"] for message in body["messages"]]


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()  # type: ignore[call-overload]


async def restarted(run: LobuRun, conversation: Conversation) -> Conversation:
    """The same conversation with no actor anywhere."""
    assert await run.stop() == 0
    await run.start()
    return Conversation(client_of(run), conversation.key)


async def test_the_live_file_and_the_snapshot_tell_the_same(start: Any) -> None:
    run = await start()
    conversation = await client_of(run).open()
    for word in ("one", "two", "three"):
        await ask(conversation, word)
    live = [await get(conversation, tail) for tail in ("messages", "stats", "messages?limit=2")]
    assert texts(live[0]) == ["one", "one", "two", "two", "three", "three"]
    assert live[1]["stats"]["messagesByRole"] == {"user": 3, "assistant": 3}
    conversation = await restarted(run, conversation)
    for left in (run.folder / ".lobu" / "workspaces").rglob("session.jsonl"):
        left.write_text("what an older owner left on this disk\n")
    assert [await get(conversation, tail) for tail in ("messages", "stats", "messages?limit=2")] == live
    cursor = live[2]["nextCursor"]
    assert texts(await get(conversation, f"messages?cursor={cursor}")) == ["two", "two", "three", "three"]


async def test_a_new_session_ends_the_old_one_and_keeps_the_queue(start: Any) -> None:
    run = await start()
    conversation = await client_of(run).open()
    await ask(conversation, "one")
    assert await ask(conversation, "history") == "2"
    cursor = (await get(conversation, "messages"))["nextCursor"]
    running = await conversation.send("sleep 1000")
    queued = await conversation.send("history")
    async with conversation.events(since="0") as stream:
        answer = await conversation.client.call("POST", f"{conversation.path}/reset", {"messageId": "reset-1"})
        assert answer.status == 200
        with trio.fail_after(30):
            seen = [frame async for frame in until(stream, "complete", "reset-1")]
    assert ("ephemeral", "Starting fresh") in [(frame.event, frame.data.get("content")) for frame in seen]
    assert seen[-1].data["finalText"] == "Starting fresh"
    assert (await conversation.terminal_of(running)).event == "cancelled"
    assert (await conversation.terminal_of(queued)).data["finalText"] == "0"
    assert texts(await get(conversation, "messages")) == ["history", "0"]
    assert (await get(conversation, "stats"))["stats"]["generation"] == 2
    answer = await conversation.client.call("GET", f"{conversation.path}/session/messages?cursor={cursor}")
    assert (answer.status, answer.body["code"]) == (400, "INVALID_CURSOR")
    assert await ask(conversation, "/new") == "Starting fresh"
    assert texts(await get(conversation, "messages")) == []
    assert await ask(conversation, "history") == "0"
    assert rows(run.database_url, "SELECT count(*), count(DISTINCT generation) FROM transcript_segment") == [(1, 1)]


async def until(stream: Any, event: str, message_id: str) -> AsyncIterator[Any]:
    while True:
        frame = await stream.next()
        yield frame
        if frame.event == event and frame.data.get("messageId") == message_id:
            return


async def test_a_worker_with_its_own_file_posts_reads_and_deletes(start: Any) -> None:
    run = await start()
    conversation = await client_of(run).open(agentId="posting")
    assert json.loads(await ask(conversation, "get"))[0] == 404
    first, again = json.loads(await ask(conversation, "post one"))
    assert (first, again[0]) == ([200, {"success": True, "kept": True}], 409)
    assert json.loads(await ask(conversation, "get")) == [200, {"success": True, "snapshotJsonl": "one\n"}]
    assert json.loads(await ask(conversation, "post-other two"))[0] == 403
    assert json.loads(await ask(conversation, "post-failed two"))[1]["kept"] is False
    assert (await conversation.ask("post-then-crash two")).event == "agent-error"
    assert json.loads(await ask(conversation, "get"))[1]["snapshotJsonl"] == "one\n"
    await ask(conversation, "post two")
    conversation = await restarted(run, conversation)
    assert json.loads(await ask(conversation, "get"))[1]["snapshotJsonl"] == "one\ntwo\n"
    assert json.loads(await ask(conversation, "delete")) == [200, {"success": True, "deleted": 2}]
    assert json.loads(await ask(conversation, "delete")) == [200, {"success": True, "deleted": 0}]
    assert json.loads(await ask(conversation, "get"))[0] == 404
    assert rows(run.database_url, "SELECT count(*) FROM posted_snapshot") == [(0,)]


async def test_another_provider_gets_a_new_session_and_a_summary(start: Any) -> None:
    run = await start()
    client = client_of(run)
    conversation = await client.open(agentId="posting", provider="one", forceNew=False)
    line = {"type": "message", "id": "a", "parentId": None, "message": {"role": "user", "content": "remember me"}}
    await ask(conversation, "post " + json.dumps(line))
    assert json.loads(await ask(conversation, "summary")) is None
    assert (await client.open(agentId="posting", provider="two", forceNew=False)).key == conversation.key
    assert json.loads(await ask(conversation, "summary")) == "user: remember me"
    conversation = await restarted(run, conversation)
    assert json.loads(await ask(conversation, "summary")) == "user: remember me"
    assert rows(run.database_url, "SELECT generation, provider FROM conversation") == [(2, "two")]


async def test_with_the_file_as_the_store_the_file_is_the_truth(start: Any) -> None:
    run = await start(LOBU_SESSION_STORE="file")
    conversation = await client_of(run).open()
    await ask(conversation, "one")
    live = await get(conversation, "messages")
    assert texts(live) == ["one", "one"]
    conversation = await restarted(run, conversation)
    assert await get(conversation, "messages") == live
    assert rows(run.database_url, "SELECT count(*) FROM transcript_segment") == [(0,)]
    assert await ask(conversation, "history") == "2"
    assert await ask(conversation, "/new") == "Starting fresh"
    assert await ask(conversation, "history") == "0"
