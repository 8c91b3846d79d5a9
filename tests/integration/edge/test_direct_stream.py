"""Event streams without Quart (`edge.direct_stream`): the same answers as with it, and nothing left when they end."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.errors import StoreUnavailable
from tests.fakes.http_server import Running, parse_frames

QUART = [("x-twice", "a"), ("x-twice", "b")]  # a head that is out of the ordinary


async def ended(server: Running) -> ConversationRef:
    """A conversation with one message that has ended."""
    world = server.world
    ref = await world.conversation()
    turn = await world.message(ref, message_id="m1")
    owner = await world.owner(ref)
    await owner.begin(turn)
    owner.say("reply")
    await owner.end(turn, EventType.COMPLETE)
    return ref


def same(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    return answer.status_code, {name: value for name, value in answer.headers.items() if name != "date"}, answer.content


@pytest.mark.parametrize("prefix", ["", "/lobu"])
@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?messageId=m1", {}, 200),
        ("?messageId=m1&messageId=other", {}, 200),
        ("?messageId=m%31&since=0", {}, 200),
        ("?messageId=m1", {"Last-Event-ID": "1"}, 200),
        ("?messageId=m1&since=9", {"Last-Event-ID": "0.1.2"}, 200),
        ("?messageId=none", {}, 404),
        ("?messageId=%00", {}, 400),
        ("?messageId=%ff", {}, 404),
        ("?messageId=m1&x=%c3%a4", {}, 200),
        ("?since=x", {}, 400),
        ("", {"Last-Event-ID": "-1"}, 400),
        ("?ticket=x", {"Authorization": ""}, 401),
        ("", {"Authorization": ""}, 401),
        ("", {"Authorization": "Bearer nobody"}, 401),
        ("", {"Authorization": "", "Cookie": "lobu_session=x"}, 403),
        ("", {"Authorization": "", "Cookie": "lobu_session=x", "Sec-Fetch-Site": "same-origin"}, 401),
    ],
)
async def test_answers_are_those_of_the_framework(
    server: Running, prefix: str, query: str, headers: dict[str, str], status: int
) -> None:
    ref = await ended(server)
    path = f"{prefix}/api/v1/agents/{ref.conversation_id}/events{query}"
    async with server.client() as client:
        if headers.get("Authorization") == "":
            del client.headers["Authorization"]
            headers = {name: value for name, value in headers.items() if value}
        direct = await client.get(path, headers=headers)
        by_quart = await client.get(path, headers=[*headers.items(), *QUART])
    assert same(direct) == same(by_quart)
    assert direct.status_code == status, direct.text


async def test_a_browser_that_comes_back_behind_the_end_is_told_to_stay_away(server: Running) -> None:
    ref = await ended(server)
    await (await server.world.owner(ref)).close()
    path = f"/api/v1/agents/{ref.conversation_id}/events"
    async with server.client() as client:
        direct = await client.get(path, headers={"Last-Event-ID": "2"})
        by_quart = await client.get(path, headers=[("Last-Event-ID", "2"), *QUART])
        assert (await client.get("/health/ready")).status_code == 200, "on the same connection"
    assert direct.status_code == by_quart.status_code == 204
    assert direct.content == by_quart.content == b""


async def test_whom_the_store_cannot_tell_about_is_told_to_come_back(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await ended(server)

    async def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(server.world.store, "find_conversation", away)
    path = f"/api/v1/agents/{ref.conversation_id}/events"
    async with server.client() as client:
        direct, by_quart = await client.get(path), await client.get(path, headers=QUART)
    assert same(direct) == same(by_quart)
    assert [frame.event for frame in parse_frames(direct.content)] == ["drain"]


async def test_there_is_no_more_than_one_for_each_who_may_read(server: Running) -> None:
    ref = await ended(server)
    services = server.world.services
    streams = services.streams
    path = f"/api/v1/agents/{ref.conversation_id}/events"
    places = [streams.place(ref) for _ in range(services.settings.max_streams_per_conversation)]
    for place in places:
        place.__enter__()
    async with server.client() as client:
        direct, by_quart = await client.get(path), await client.get(path, headers=QUART)
    assert same(direct) == same(by_quart)
    assert direct.status_code == 429
    places.pop().__exit__()
    async with server.client() as client, client.stream("GET", path) as stream:
        assert stream.status_code == 200
    with trio.fail_after(5):
        await server.world.gateway.until_readers(ref, 0)
    assert streams.of(ref) == len(places)
    for place in places:
        place.__exit__()
