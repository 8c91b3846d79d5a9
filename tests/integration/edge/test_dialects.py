"""The other protocols' addresses on a real socket: what is refused, what repeating does, how a reply ends."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.errors import StoreOutcomeUnknown, StoreUnavailable
from lobu_actors.store.question_records import AnswerOutcome
from lobu_actors.store.records import Agent, Turn
from tests.fakes.dialect_readers import READERS
from tests.fakes.dialect_requests import (
    AG_UI,
    CHAT,
    RESPONSES,
    UI,
    Dialect,
    each,
    hang_up_behind,
    replying,
    send,
)
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.gateway import NOW_MS, Owner
from tests.fakes.http_server import Running, running
from tests.system.lobu_process import until as until_true


@each
async def test_a_reply(server: Running, dialect: Dialect) -> None:
    replying(server.world)
    async with server.client() as client:
        outcome = await send(client, dialect, "hello")
    assert (outcome.end, outcome.text) == ("complete", "you said hello")


@pytest.mark.parametrize("prefix", ["", "/lobu"])
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1", 404, "NOT_FOUND"),
        ("GET", "/v1/", 404, "NOT_FOUND"),
        ("POST", "/v1/embeddings", 404, "NOT_FOUND"),
        ("GET", "/v1/files/f/content", 404, "NOT_FOUND"),
        ("GET", "/v1/models/none", 404, "AGENT_NOT_FOUND"),
        ("DELETE", "/v1/models/echo", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/chat/completions", 405, "METHOD_NOT_ALLOWED"),
        ("BREW", "/v1/responses", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/chat/completions", 400, "INVALID_FIELD"),
    ],
)
async def test_all_of_v1_refuses_as_openai_does(
    server: Running, prefix: str, method: str, path: str, status: int, code: str
) -> None:
    async with server.client() as client:
        answer = await client.request(method, prefix + path, json={} if method == "POST" else None)
        ours = await client.request(method, f"{prefix}/v11/models")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})
    assert list(answer.json()) == ["error"]
    assert (status != 405) or answer.headers["Allow"]
    assert ours.json()["code"] == "NOT_FOUND", "what is no address of theirs is refused as ever"


@each
async def test_one_name_is_one_conversation_in_every_dialect(server: Running, dialect: Dialect) -> None:
    turns = replying(server.world)
    async with server.client() as client:
        await send(client, dialect, "one", "holiday")
        await send(client, dialect, "two", "holiday")
        await send(client, dialect, "three", "a name / that is no id")
        opened = await client.post("/api/v1/agents", json={"thread": "holiday"})
    assert turns[0].ref.conversation_id == turns[1].ref.conversation_id == opened.json()["agentId"]
    assert turns[2].ref.conversation_id.startswith("echo_root_acme_name-")


@pytest.mark.parametrize("header", ["X-Lobu-Conversation", "X-OpenWebUI-Chat-Id", "x-session-id", "session-id"])
async def test_headers_that_name_a_conversation(server: Running, header: str) -> None:
    turns = replying(server.world)
    async with server.client() as client:
        body = CHAT.body("hi", None) | {"stream": False}
        for path, sent in ((CHAT.path, body), (RESPONSES.path, {"model": "echo", "input": "hi"})):
            answer = await client.post(path, json=sent, headers={header: "c1"})
            assert answer.headers["X-Lobu-Conversation"] == "echo_root_acme_c1"
        # Its whole id does as well.
        await client.post(CHAT.path, json=body, headers={header: "echo_root_acme_c1"})
    assert {turn.ref.conversation_id for turn in turns} == {"echo_root_acme_c1"}
    assert len(turns) == 3


async def test_responses_go_on_by_id_and_by_conversation(server: Running) -> None:
    turns = replying(server.world)
    async with server.client() as client:
        first = (await client.post(RESPONSES.path, json={"model": "echo", "input": "a"})).json()
        more = {"model": "echo", "input": "b", "previous_response_id": first["id"]}
        second = (await client.post(RESPONSES.path, json=more)).json()
        await client.post(RESPONSES.path, json={"model": "echo", "input": "c", "conversation": first["conversation"]})
        wrong = await client.post(RESPONSES.path, json=more | {"previous_response_id": "resp_x"})
    assert (second["output"][0]["content"][0]["text"], second["status"]) == ("you said b", "completed")
    assert second["previous_response_id"] == first["id"] != second["id"]
    assert len({turn.ref for turn in turns}) == 1
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "previous_response_id")


async def test_what_came_before_is_carried_into_a_new_conversation_only(server: Running) -> None:
    turns = replying(server.world)
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "text", "text": "first"}]},
        {"role": "user", "content": "two"},
    ]
    async with server.client() as client:
        for headers in ({}, {"X-Lobu-Conversation": "kept"}, {"X-Lobu-Conversation": "kept"}):
            await client.post(CHAT.path, json={"model": "echo", "messages": messages}, headers=headers)
    before = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "first"}]
    assert [turn.content for turn in turns] == ["two"] * 3
    assert [turn.payload.get("history") for turn in turns] == [before, before, None]
    assert {turn.payload["instructions"] for turn in turns} == {"be brief"}


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES], ids=["chat", "responses"])
async def test_the_same_key_is_the_same_turn(server: Running, dialect: Dialect) -> None:
    turns = replying(server.world)
    async with server.client() as client:
        for _ in range(2):
            outcome = await send(client, dialect, "once", key="k1")
            assert (outcome.end, outcome.text) == ("complete", "you said once")
        await send(client, dialect, "once", key="k2")
    assert len({turn.turn_id for turn in turns}) == 2
    assert len(server.world.store.tables.turns) == 2


@pytest.mark.parametrize("dialect", [UI, AG_UI], ids=["ui", "ag-ui"])
async def test_the_same_message_of_a_page_is_the_same_turn(server: Running, dialect: Dialect) -> None:
    replying(server.world)
    async with server.client() as client:
        for text in ("once", "once", "twice"):
            await send(client, dialect, text)
        assert len(server.world.store.tables.turns) == 2
        again = UI.body("once", None) | {"trigger": "regenerate-message"}
        await client.post(UI.path, json=again)
    assert len(server.world.store.tables.turns) == 3


@each
async def test_refused_before_there_is_a_turn(server: Running, dialect: Dialect) -> None:
    """A store that is away, and a server with no room: clients ask again by themselves, and nothing has begun."""
    world = server.world
    turns = replying(world)
    async with server.client() as client:
        ref = ConversationRef("acme", "echo", "echo_root_acme_full")
        with ExitStack() as streams:
            for _ in range(world.settings.max_streams_per_conversation):
                streams.enter_context(world.services.streams.place(ref))
            refused = await client.post(dialect.path, **dialect.request("hi", "full"))
        assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (429, True)
        world.gateway.draining = True
        refused = await client.post(dialect.path, **dialect.request("hi", "other"))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert turns == []
    assert not world.store.tables.turns


@pytest.mark.parametrize(
    ("fault", "key", "should_retry"),
    [(StoreUnavailable, None, True), (StoreOutcomeUnknown, None, False), (StoreOutcomeUnknown, "k", True)],
)
async def test_a_client_asks_again_only_for_what_cannot_be_there(
    server: Running, monkeypatch: pytest.MonkeyPatch, fault: type[Exception], key: str | None, should_retry: bool
) -> None:
    """A turn that may have been stored would be there twice; by a key of its own it would be found."""

    async def fail(*_: Any, **__: Any) -> None:
        raise fault("away")

    monkeypatch.setattr(server.world.services.acceptance, "accept", fail)
    async with server.client() as client:
        answer = await client.post(CHAT.path, **CHAT.request("hi", None, key))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORE_UNAVAILABLE")
    assert (answer.headers.get("x-should-retry") != "false") == should_retry


@each
@pytest.mark.parametrize("kind", [EventType.AGENT_ERROR, EventType.CANCELLED])
async def test_a_turn_that_fails_inside_the_stream(server: Running, dialect: Dialect, kind: EventType) -> None:
    async def fail(owner: Owner, turn: Turn) -> None:
        await owner.begin(turn)
        owner.say("half a re")
        await owner.end(turn, kind)

    replying(server.world, fail)
    async with server.client() as client:
        outcome = await send(client, dialect, "hi")
        if kind is EventType.AGENT_ERROR:
            assert (outcome.end, outcome.code) == ("error", "WORKER_CRASHED")
        else:
            assert outcome.end == ("cancelled" if dialect in (UI, AG_UI) else "error")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("WORKER_CRASHED", 502),
        ("PROVIDER_AUTH", 502),
        ("PROVIDER_QUOTA", 429),
        ("GUARDRAIL_REJECTED", 400),
        ("HOST_LOST", 500),
        ("OWN_CODE", 502),
    ],
)
async def test_a_turn_that_fails_before_a_stream(server: Running, code: str, status: int) -> None:
    async def fail(owner: Owner, turn: Turn) -> None:
        await owner.begin(turn)
        data = events.agent_error(turn.message_id, [turn.message_id], code, "so it is", None, NOW_MS)
        await owner._finish(turn, EventType.AGENT_ERROR, owner.run_id, data, (None, None))
        owner.tell()

    replying(server.world, fail)
    async with server.client() as client:
        for path, body in ((CHAT.path, CHAT.body("x", None) | {"stream": False}), (RESPONSES.path, {"input": "x"})):
            answer = await client.post(path, json={"model": "echo"} | body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.headers["x-should-retry"] == "false"


async def asking(owner: Owner, turn: Turn) -> None:
    """Says something, asks, and waits."""
    await owner.begin(turn)
    owner.say("well, ")
    await owner.commit_question(turn, "q1")
    owner.tell()


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, AG_UI], ids=lambda dialect: dialect.name)
async def test_a_question(server: Running, dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the response; the next message is its answer, and brings the rest of the same turn."""
    world = server.world
    owners: list[Owner] = []

    async def ask(owner: Owner, turn: Turn) -> None:
        owners.append(owner)
        await asking(owner, turn)

    turns = replying(world, ask)

    async def answered(*_: Any, **__: Any) -> Any:
        owners[0].say("then yes")
        await owners[0].end(turns[0])
        return AnswerOutcome.ACCEPTED

    monkeypatch.setattr(world.store, "answer_question", answered)
    async with server.client() as client:
        asked = await send(client, dialect, "go", "talk")
        if dialect is AG_UI:
            assert (asked.end, asked.text, asked.parts[0]["id"]) == ("question", "well, ", "q1")
            entry = {"interruptId": "q1", "status": "resolved", "payload": "yes"}
            body = AG_UI.body("answer", "talk") | {"resume": [entry]}
            rest = READERS["ag-ui"]((await client.post(AG_UI.path, json=body)).content)
        else:
            assert (asked.end, asked.text) == ("complete", "well, \n\nwhich?")
            rest = await send(client, dialect, "yes", "talk")
    assert (rest.end, rest.text) == ("complete", "then yes")
    assert len(world.store.tables.turns) == 1


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES], ids=lambda dialect: dialect.name)
async def test_a_question_ends_an_answer_in_one_piece_at_once(dialect: Dialect) -> None:
    """Nothing else comes before it is answered but the keep-alive, which must not be what ends it."""
    world = await EdgeWorld.make()
    replying(world, asking)
    async with running(world) as server, server.client() as client:
        body = dialect.body("go", None) | {"stream": False}
        headers = {"X-Lobu-Conversation": "talk"}
        answer = await client.post(dialect.path, json=body, headers=headers, timeout=world.settings.ping_seconds / 2)
    assert answer.status_code == 200
    assert "which?" in answer.text


async def test_a_question_to_a_client_that_cannot_come_back(server: Running) -> None:
    turns = replying(server.world, asking)
    async with server.client() as client:
        outcome = await send(client, CHAT, "go")
    assert (outcome.end, outcome.code) == ("error", "QUESTION_ASKED")
    await until_true(lambda: server.world.gateway.cancels, "it is cancelled")
    assert server.world.gateway.cancels == [(turns[0].ref, turns[0].message_id)]


@each
async def test_who_hangs_up_cancels_where_there_is_no_other_word_for_it(server: Running, dialect: Dialect) -> None:
    async def begin(owner: Owner, turn: Turn) -> None:
        await owner.begin(turn)
        owner.say("it goes on")

    turns = replying(server.world, begin)
    await hang_up_behind(b"it goes on", server, dialect, "one")
    await server.world.gateway.until_readers(turns[0].ref, 0)
    if dialect is UI:
        assert server.world.gateway.cancels == []
        return
    await until_true(lambda: server.world.gateway.cancels, "it is cancelled")
    assert server.world.gateway.cancels == [(turns[0].ref, turns[0].message_id)]


async def test_who_hangs_up_before_an_answer_in_one_piece_cancels_too(server: Running) -> None:
    async def begin(owner: Owner, turn: Turn) -> None:
        await owner.begin(turn)

    turns = replying(server.world, begin)
    async with server.client() as client:
        body = CHAT.body("hi", None) | {"stream": False}
        with pytest.raises(httpx.ReadTimeout):
            await client.post(CHAT.path, json=body, timeout=0.3)
    await until_true(lambda: server.world.gateway.cancels, "it is cancelled")
    assert server.world.gateway.cancels == [(turns[0].ref, turns[0].message_id)]


async def test_a_page_resumes_and_stops(server: Running) -> None:
    owners: list[Owner] = []

    async def begin(owner: Owner, turn: Turn) -> None:
        owners.append(owner)
        await owner.begin(turn)
        owner.say("first ")

    turns = replying(server.world, begin)
    async with server.client() as client:
        for chat in ("never", "c"):
            assert (await client.get(f"{UI.path}/{chat}/stream")).status_code == 204
            stopped = await client.post(f"{UI.path}/{chat}/stop")
            assert (stopped.status_code, stopped.json()["stage"]) == (202, "nothing-to-cancel")
        assert not server.world.store.tables.conversations
        await hang_up_behind(b"first", server, UI, "c")
        stopped = await client.post(f"{UI.path}/c/stop")
        assert stopped.json()["stage"] == "accepted"
        assert server.world.gateway.cancels == [(turns[0].ref, None)]
        async with client.stream("GET", f"{UI.path}/c/stream") as answer:
            assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
            owners[0].say("second")
            await owners[0].end(turns[0])
            raw = await answer.aread()
        assert READERS["ui"](raw).text == "first second"
        assert (await client.get(f"{UI.path}/c/stream")).status_code == 204
        server.world.gateway.cancel_result = CancelResult.UNREACHABLE
        assert (await client.post(f"{UI.path}/c/stop")).status_code == 503


async def test_models_are_the_agents_that_the_caller_may_use(server: Running) -> None:
    agents = [Agent("acme", "echo", "echo", is_default=True), Agent("acme", "hers", "echo", owner_user_id="ann")]
    await server.world.store.apply_agents("acme", [*agents, Agent("acme", "his", "echo", owner_user_id="bob")])
    expected = {server.world.user_key: ["echo", "hers"], server.world.admin_key: ["echo", "hers", "his"]}
    for key, names in expected.items():
        async with server.client(key) as client:
            assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == names
            for name in ("hers", "his"):
                answer = await client.get(f"/v1/models/{name}")
                assert answer.status_code == (200 if name in names else 404)
                sent = await client.post(CHAT.path, json=CHAT.body("x", None) | {"model": name, "messages": []})
                assert sent.json()["error"]["code"] == "INVALID_FIELD"
