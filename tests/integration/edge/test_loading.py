"""A server whose routes are still being loaded (`edge.application`)."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from edge import application
from edge.listening import bind
from edge.server import serve
from edge.settings import EdgeSettings
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import EventReader, Running

SECONDS = 20.0
LIVE = b"GET /health/live HTTP/1.0\r\n\r\n"


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Routes are not loaded before it is set."""
    event, load = threading.Event(), application._routes_of

    def late(services: application.Services) -> application.Routes:
        assert event.wait(SECONDS)
        return load(services)

    monkeypatch.setattr(application, "_routes_of", late)
    yield event
    event.set()


@asynccontextmanager
async def loading(world: EdgeWorld) -> AsyncIterator[tuple[Running, trio.Event]]:
    """The server, and what is set when it says that it is ready."""
    sockets = await bind("127.0.0.1", 0, world.settings)
    stopping, ready = trio.Event(), trio.Event()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(start)
            ready.set()

    async def start(task_status: trio.TaskStatus[int]) -> None:
        await serve(world.application, world.settings, stopping=stopping, sockets=sockets, task_status=task_status)

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield Running(world, sockets[0].getsockname()[1], stopping, ready), ready
            stopping.set()


async def answer_to(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


async def test_messages_and_streams_do_not_wait_for_the_routes(release: threading.Event) -> None:
    world = await EdgeWorld.make()
    ref = await world.conversation()
    owner = await world.owner(ref)
    async with loading(world) as (server, ready), await server.connect() as other:
        await other.send_all(LIVE)
        path = f"/api/v1/agents/{ref.conversation_id}"
        async with server.client() as client:
            sent = await client.post(f"{path}/messages", json={"content": "hello", "messageId": "m1"})
        assert sent.status_code == 200
        reader = await EventReader.open(server, f"{path}/events")
        turn = await world.store.find_turn(ref, "m1")
        assert turn is not None
        await owner.begin(turn)
        owner.say("reply")
        await reader.until(b"reply")
        async with server.client() as client:
            del client.headers["Authorization"]
            browser = {"Cookie": "other=1; lobu_session=x", "Sec-Fetch-Site": "same-origin"}
            assert (await client.get(f"{path}/events", headers=browser)).status_code == 401
        assert not ready.is_set()
        with trio.move_on_after(0.05):
            pytest.fail(f"answered before it could be: {await other.receive_some()!r}")
        release.set()
        assert (await answer_to(other)).startswith(b"HTTP/1.1 200")
        await ready.wait()
        await reader.close()


async def test_settings_that_are_read_again_meanwhile_are_in_force(release: threading.Event) -> None:
    world = await EdgeWorld.make()
    async with loading(world) as (server, ready):
        await trio.testing.wait_all_tasks_blocked()
        world.application.take_up(EdgeSettings(max_message_bytes=1 << 10))
        release.set()
        await ready.wait()
        async with server.client() as client:
            refused = await client.post("/api/v1/agents", json={"thread": "a" * 2000})
        assert refused.status_code == 413


async def test_routes_that_cannot_be_loaded_end_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(services: application.Services) -> application.Routes:
        raise ImportError("no such module")

    monkeypatch.setattr(application, "_routes_of", broken)
    world = await EdgeWorld.make()
    with trio.fail_after(SECONDS), pytest.RaisesGroup(pytest.RaisesExc(ImportError), flatten_subgroups=True):
        await serve(world.application, world.settings, stopping=trio.Event())


async def test_a_server_that_is_cancelled_while_it_loads_just_ends(release: threading.Event) -> None:
    world, serving = await EdgeWorld.make(), trio.CancelScope()

    async def run() -> None:
        with serving:
            await serve(world.application, world.settings, stopping=trio.Event())

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            serving.cancel()
            await trio.testing.wait_all_tasks_blocked()  # nothing listens any more, and the routes come in
            release.set()
