"""The Python client against a real `lobu run`, on trio and on asyncio: every call, and restarts amid a reply."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
import trio

from lobu_actors.client import Client, ClientEvent, RequestRefused
from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.system.audit import broken_promises, turn_of
from tests.system.conftest import Start, shared_run
from tests.system.lobu_process import ADMIN_KEY, ECHO, LOBU, LobuRun, free_port, until

BACKENDS = ["trio", "asyncio"]
SECONDS = 60
HANDS_OVER = f"""
[limits]
drain_grace_seconds = 0.05
{ECHO}"""
Work = Callable[[], Awaitable[Any]]


async def on(backend: str, work: Work) -> Any:
    """Run the client's side in an event loop of its own, in a thread."""

    async def bounded() -> Any:
        with anyio.fail_after(SECONDS):
            return await work()

    return await trio.to_thread.run_sync(lambda: anyio.run(bounded, backend=backend))


async def reply(client: Client, key: str, content: str) -> list[ClientEvent]:
    receipt = await client.send(key, content)
    async with client.stream(key, message_id=receipt.message_id) as events:
        return [event async for event in events]


@pytest.fixture(scope="module")
def run(database_server: EmbeddedServer, template_database: str) -> Iterator[LobuRun]:
    admin(database_server.url, f"CREATE DATABASE lobu_client TEMPLATE {template_database} STRATEGY file_copy")
    with shared_run(ECHO, url_of(database_server, "lobu_client")) as shared:
        yield shared
    admin(database_server.url, "DROP DATABASE lobu_client WITH (FORCE)")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_call(run: LobuRun, backend: str) -> None:
    async def work() -> None:
        async with Client(run.url, ADMIN_KEY) as admin:
            assert await admin.ready()
            opened = await admin.open("echo", user="ann", thread=backend)
            assert (await admin.open("echo", user="ann", thread=backend)).key == opened.key
            assert (await admin.open("echo", user="ann", new=True)).key != opened.key
        async with Client(run.url, opened.token) as client:
            key = opened.key
            events = await reply(client, key, "hello there")
            assert events[-1].final_text == "hello there"
            assert "".join(event.content for event in events if event.type == "output") == "hello there"
            await _question(client, key)
            await _cancel(client, key)
            info = await client.info(key)
            assert (info["agentId"], info["queued"]) == (key, 0)
            page = await client.history(key, limit=1)
            assert len(page["messages"]) == 1
            assert (await client.history(key, cursor=page["nextCursor"]))["messages"]
            receipt = await client.reset(key)
            async with client.stream(key, message_id=receipt.message_id) as stream:
                assert [event.type async for event in stream][-1] == "complete"
            assert not (await client.history(key))["messages"]
            await client.close(key)
            async with client.stream(key) as stream:
                everything = [event.type async for event in stream]
            assert everything[-1] == "closed"
            assert everything.count("complete") == 3
            with pytest.raises(RequestRefused, match="ended"):
                await client.send(key, "too late")
            with pytest.raises(RequestRefused, match="another conversation"):
                await client.info(key + "x")

    await on(backend, work)
    assert broken_promises(run.database_url) == []


async def _question(client: Client, key: str) -> None:
    asked = await client.send(key, "ask Go on?")
    async with client.stream(key, message_id=asked.message_id) as events:
        async for event in events:
            if event.type == "question":
                await client.answer(key, event.data["questionId"], "yes")
                with pytest.raises(RequestRefused) as late:
                    await client.answer(key, event.data["questionId"], "no")
                assert (late.value.status, late.value.code) == (409, "QUESTION_ANSWERED")
    assert event.final_text == "yes"


async def _cancel(client: Client, key: str) -> None:
    sent = await client.send(key, "sleep 60")
    waiting = await client.send(key, "never said", on_busy="enqueue")
    assert (await client.cancel(key, waiting.message_id))["stage"] == "accepted"
    assert (await client.cancel(key))["stage"] == "accepted"
    for message_id in (sent.message_id, waiting.message_id):
        async with client.stream(key, message_id=message_id) as events:
            assert [event.type async for event in events][-1] == "cancelled"


@pytest.mark.parametrize(("backend", "how"), [("trio", "killed"), ("asyncio", "stopped"), ("asyncio", "killed")])
async def test_a_server_that_restarts_in_the_middle_of_a_reply(start_run: Start, backend: str, how: str) -> None:
    """The stream goes on by itself, and calls that are made meanwhile wait for the server."""
    run: LobuRun = await start_run(config=HANDS_OVER, arguments=("--port", str(free_port())))
    begun, down = threading.Event(), threading.Event()

    async def work() -> tuple[str, ClientEvent]:
        text, before = "", ""
        async with Client(run.url, ADMIN_KEY) as client:
            key = (await client.open()).key
            sent = await client.send(key, "stream 2000 50", message_id="long")
            async with client.stream(key, message_id=sent.message_id) as events:
                async for event in events:
                    text = "" if event.type == "restart" else text + (event.content if event.type == "output" else "")
                    if event.type == "output" and not before:
                        before = text
                        begun.set()
                        await anyio.to_thread.run_sync(down.wait, SECONDS)
                        await client.send(key, "hello", message_id="meanwhile")
                    elif event.type == "output" and events.connections > 1 and len(text) > len(before):
                        await client.cancel(key, "long")
            async with client.stream(key, message_id="meanwhile") as later:
                assert [event.type async for event in later][-1] == "complete"
            return text, event

    async def restart() -> None:
        await trio.to_thread.run_sync(begun.wait, SECONDS)
        if how == "killed":
            await run.kill_main()
        else:
            assert await run.stop() == 0
        down.set()
        await run.start()

    told: list[tuple[str, ClientEvent]] = []

    async def follow() -> None:
        told.append(await on(backend, work))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        nursery.start_soon(follow)
    text, end = told[0]
    assert (end.type, end.final_text) == ("cancelled", text)
    assert text.startswith("word0 word1 ")
    assert turn_of(run.database_url, "long")[1] == (1 if how == "killed" else 2), "adopted, or handed over"
    assert broken_promises(run.database_url, accepted=["long", "meanwhile"]) == []


async def test_lobu_chat_goes_on_over_a_restart(start_run: Start) -> None:
    run: LobuRun = await start_run(config=ECHO, arguments=("--port", str(free_port())))
    command = [sys.executable, *LOBU, "chat", "--json", "--gateway", run.url, "stream 2000 50"]
    events: list[dict[str, Any]] = []

    async def read(chat: trio.Process) -> None:
        assert chat.stdout is not None
        rest = b""
        async for chunk in chat.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            events.extend(map(json.loads, lines))

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            chat = await trio.lowlevel.open_process(
                command, cwd=run.folder, env=run.environment, stdout=subprocess.PIPE, process_group=0
            )
            nursery.start_soon(read, chat)
            await until(lambda: len(events) > 5, "the reply comes")
            await run.kill_main()
            await run.start()
            seen = len(events)
            await until(lambda: len(events) > seen + 5, "the reply goes on")
            chat.send_signal(signal.SIGINT)  # which cancels the turn and waits for its end
            assert await chat.wait() == 130
    text = "".join(event["data"]["content"] for event in events if event["event"] == "output")
    assert events[-1]["event"] == "cancelled"
    # What was written between the key and the cancel is told by the end alone.
    assert events[-1]["data"]["finalText"].startswith(text)
    assert text.startswith("word0 word1 ")
