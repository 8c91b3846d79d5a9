"""A conversation over a WebSocket: the same events and ids as the event stream, calls, refusals."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionRejected

from edge.settings import EdgeSettings
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import new_id
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.question_records import AnswerOutcome
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running, parse_frames, running
from tests.fakes.socket_client import Socket, opened

KEY = "echo_ann_acme"
PATH = f"/api/v1/agents/{KEY}/socket"


async def test_a_message_sent_and_its_reply_read_over_one_socket(server: Running) -> None:
    world = server.world
    ref = await world.conversation()
    async with opened(server, f"/lobu{PATH}", key=world.user_key) as socket:
        connected = await socket.until("connected")
        assert connected.data["agentId"] == KEY
        status, receipt = await socket.call("send", content="hi", messageId="m1", model="m")
        assert (status, receipt["messageId"], receipt["position"]) == (200, "m1", 0)
        assert receipt["eventsUrl"].startswith(f"{server.url}/lobu/api/v1/agents/{KEY}/events?messageId=m1")
        [turn] = world.gateway.hints
        assert (turn.content, turn.payload) == ("hi", {"model": "m"})
        again = await socket.call("send", content="hi", messageId="m1", model="m")
        assert again[1]["turnId"] == receipt["turnId"], "the same message is the same turn"
        owner = await world.owner(ref)
        await owner.begin(turn)
        owner.say("hello\u2028")
        await socket.until("output")
        await owner.end(turn)
        await socket.until("complete")
    assert [frame.event for frame in socket.frames] == ["connected", "output", "complete"]
    assert [frame.id for frame in socket.frames] == [None, "0.1.6", "1"]
    assert socket.frames[2].data["finalText"] == "hello\u2028"


async def test_events_and_ids_are_the_streams(server: Running) -> None:
    """Everything that the log holds, over both; of the pair for a failure the older name is the stream's alone."""
    world = server.world
    ref = await world.conversation()
    owner = await world.owner(ref)
    for kind in (EventType.COMPLETE, EventType.AGENT_ERROR):
        turn = await world.message(ref)
        await owner.begin(turn)
        owner.say("text")
        await owner.commit_question(turn, new_id())
        await owner.end(turn, kind)
    await owner.close()
    async with server.client() as client:
        raw = (await client.get(f"/api/v1/agents/{KEY}/events")).content
    streamed = [frame for frame in parse_frames(raw) if frame.event != "error"]
    async with opened(server, PATH) as socket:
        assert await socket.to_end() == (1000, "Everything that was asked for was sent.")
    assert socket.frames[1:] == streamed[1:]
    for frame in streamed[1:]:
        for how in ({"last_event_id": frame.id}, {}):
            query = "" if how else f"?since={frame.id}"
            async with opened(server, PATH + query, **how) as socket:
                await socket.to_end()
            behind = streamed[streamed.index(frame) + 1 :]
            assert socket.frames[1:] == behind, "what it lacks, and no more"


async def test_a_socket_resumes_in_the_middle_of_a_text(server: Running) -> None:
    world = server.world
    ref = await world.conversation()
    turn = await world.message(ref, message_id="m1")
    owner = await world.owner(ref)
    await owner.begin(turn)
    owner.say("one ")
    async with opened(server, f"{PATH}?messageId=m1") as socket:
        seen = await socket.until("output")
    owner.say("two")
    async with opened(server, f"{PATH}?messageId=m1&since={seen.id}") as socket:
        assert (await socket.until("output")).data["content"] == "two"
        await owner.end(turn)
        assert await socket.to_end() == (1000, "Everything that was asked for was sent.")
    assert socket.frames[-1].data["finalText"] == "one two"


async def test_calls_cancel_answer_and_begin_anew(server: Running) -> None:
    world = server.world
    ref = await world.conversation()
    owner = await world.owner(ref)
    turn = await world.message(ref, message_id="m1")
    await owner.begin(turn)
    await owner.commit_question(turn, "q1")
    owner.tell()
    outcomes = [AnswerOutcome.ACCEPTED, AnswerOutcome.ALREADY_ANSWERED]

    async def answer_question(*_: Any, answered_by: str, **__: Any) -> AnswerOutcome:
        assert answered_by == "ann"
        return outcomes.pop(0)

    world.store.answer_question = answer_question
    async with opened(server, PATH, key=world.user_key) as socket:
        question = await socket.until("question")
        assert await socket.call("cancel", messageId="m1") == (202, {"success": True, "stage": "accepted"})
        asked = question.data["questionId"]
        assert await socket.call("answer", questionId=asked, answer="yes") == (200, {"success": True})
        status, body = await socket.call("answer", questionId=asked, answer="no")
        assert (status, body["code"]) == (409, "QUESTION_ANSWERED")
        status, body = await socket.call("reset", messageId="m2")
        assert (status, body["messageId"]) == (200, "m2")
    assert world.gateway.cancels == [(ref, "m1")]
    assert world.gateway.answers == [("q1", "yes")]
    assert world.gateway.hints[-1].content == "/new"


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("{", 400, "INVALID_JSON"),
        ("[]", 400, "INVALID_JSON"),
        ('{"call": "send", "content": "\\u0000"}', 400, "INVALID_TEXT"),
        ('{"call": "sing"}', 400, "INVALID_FIELD"),
        ('{"call": ["send"]}', 400, "INVALID_FIELD"),
        ('{"content": "hi"}', 400, "INVALID_FIELD"),
        ('{"call": "send", "ref": 7, "content": "x"}', 400, "INVALID_FIELD"),
        ('{"call": "send"}', 400, "INVALID_FIELD"),
        ('{"call": "send", "content": "x", "onBusy": "never"}', 400, "INVALID_FIELD"),
        ('{"call": "answer", "answer": "x"}', 400, "INVALID_FIELD"),
        ('{"call": "answer", "questionId": "q", "answer": 1}', 400, "INVALID_FIELD"),
        ('{"call": "answer", "questionId": "q", "answer": "x"}', 404, "QUESTION_NOT_FOUND"),
    ],
)
async def test_a_call_that_is_not_right_is_answered_and_the_socket_goes_on(
    server: Running, text: str, status: int, code: str
) -> None:
    await server.world.conversation()
    async with opened(server, PATH) as socket:
        await socket.send_text(text)
        answered, body = await socket.reply(None)
        assert (answered, body["code"], body["success"]) == (status, code, False)
        assert (await socket.call("cancel"))[0] == 202


@pytest.mark.parametrize("content", ["\\u0000", "\\ud83d", '", "deep": ' + "[" * 200 + "]" * 200 + ', "more": "'])
async def test_a_call_that_cannot_be_taken_is_answered_by_its_name(server: Running, content: str) -> None:
    await server.world.conversation()
    async with opened(server, PATH) as socket:
        await socket.send_text(f'{{"call": "send", "content": "{content}", "ref": "r1"}}')
        status, body = await socket.reply("r1")
        assert (status, body["success"]) == (400, False)


async def test_a_store_that_is_away_refuses_the_call_alone(server: Running) -> None:
    world = server.world
    await world.conversation()

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("away")

    async with opened(server, PATH) as socket:
        await socket.until("connected")
        kept, world.store.accept_turn = world.store.accept_turn, away
        status, body = await socket.call("send", content="x", messageId="m1")
        assert (status, body["code"], body["details"]) == (503, "STORE_UNAVAILABLE", {"messageId": "m1"})
        world.store.accept_turn = kept
        assert (await socket.call("send", content="x", messageId="m1"))[0] == 200


async def test_a_credential_is_checked_with_each_call() -> None:
    world = await EdgeWorld.make(EdgeSettings(api_key_cache_seconds=0))
    await world.conversation()
    async with running(world) as server, opened(server, PATH, key=world.user_key) as socket:
        assert (await socket.call("send", content="x"))[0] == 200
        for stored in list(world.store.tables.api_keys.values()):
            if stored.user_id == "ann":
                await world.store.revoke_api_key(stored.organization_id, stored.key_hash)
        status, body = await socket.call("send", content="x")
        assert (status, body["code"]) == (401, "UNAUTHORIZED")
    assert len(world.store.tables.turns) == 1


async def test_a_ticket_opens_one_socket_which_may_call_for_a_while() -> None:
    world = await EdgeWorld.make(EdgeSettings(token_lifetime_seconds=3))
    ref = await world.conversation()
    async with running(world) as server:
        async with server.client() as client:
            ticket = (await client.post(f"/api/v1/agents/{KEY}/events/ticket")).json()["ticket"]
        async with opened(server, f"{PATH}?ticket={ticket}", key="") as socket:
            assert (await socket.call("send", content="x"))[0] == 200
            with trio.fail_after(10):
                refused = await socket.call("cancel")
                while refused[0] == 202:
                    await trio.sleep(0.05)  # else it makes more calls than a caller may
                    refused = await socket.call("cancel")
            assert (refused[0], refused[1]["code"]) == (401, "TICKET_EXPIRED")
        with pytest.raises(ConnectionRejected) as rejected:
            async with opened(server, f"{PATH}?ticket={ticket}", key=""):
                pass
        assert rejected.value.status_code == 401
        assert json.loads(rejected.value.body)["code"] == "TICKET_USED"
    assert all(turn.ref == ref for turn in world.store.tables.turns.values())


async def test_a_cookie_opens_a_socket_from_our_own_pages_only(server: Running) -> None:
    await server.world.conversation()
    async with httpx.AsyncClient(base_url=server.url) as client:
        bearer = {"Authorization": f"Bearer {server.world.user_key}"}
        cookie = (await client.post("/api/v1/session", headers=bearer)).cookies["lobu_session"]
    sent = {"cookie": f"lobu_session={cookie}"}
    async with opened(server, PATH, key="", origin=server.url, **sent) as socket:
        assert (await socket.call("send", content="x"))[0] == 200
    for origin in ({"origin": "https://elsewhere.example"}, {"origin": "null"}, {}):
        with pytest.raises(ConnectionRejected) as refused:
            async with opened(server, PATH, key="", **sent, **origin):
                pass
        assert (refused.value.status_code, json.loads(refused.value.body)["code"]) == (403, "ORIGIN_REFUSED")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{PATH}?since=x", 400, "INVALID_CURSOR"),
        (f"{PATH}?messageId=none", 404, "MESSAGE_NOT_FOUND"),
        ("/api/v1/agents/echo_nobody_acme/socket", 404, "CONVERSATION_NOT_FOUND"),
        ("/api/v1/agents/echo_ann_acme/events", 400, "INVALID_FIELD"),
        ("/nowhere", 404, "NOT_FOUND"),
    ],
)
async def test_refused_before_there_is_a_socket(server: Running, path: str, status: int, code: str) -> None:
    await server.world.conversation()
    with pytest.raises(ConnectionRejected) as refused:
        async with opened(server, path):
            pass
    assert (refused.value.status_code, json.loads(refused.value.body)["code"]) == (status, code)


async def test_sockets_and_streams_share_the_places_of_a_conversation(server: Running) -> None:
    ref = await server.world.conversation()
    async with trio.open_nursery() as nursery:

        async def hold(task_status: trio.TaskStatus[Socket]) -> None:
            async with opened(server, PATH) as socket:
                await socket.until("connected")
                task_status.started(socket)
                await trio.sleep_forever()

        for _ in range(5):
            await nursery.start(_with_status, hold)
        with pytest.raises(ConnectionRejected) as refused:
            async with opened(server, PATH):
                pass
        assert (refused.value.status_code, json.loads(refused.value.body)["code"]) == (429, "TOO_MANY_STREAMS")
        async with server.client() as client:
            assert (await client.get(f"/api/v1/agents/{KEY}/events")).status_code == 429
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await server.world.gateway.until_readers(ref, 0)


async def _with_status(run: Any, *, task_status: trio.TaskStatus[Socket]) -> None:
    await run(task_status)
