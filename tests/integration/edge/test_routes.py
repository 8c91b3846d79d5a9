"""What each route answers when all is well, when the store is not, and when the owner says no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from edge.settings import EdgeSettings
from edge.subscription import StreamBroken, Subscription
from edge.tokens import api_key_hash
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, Role
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.errors import StoreOutcomeUnknown, StoreUnavailable
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.question_records import AnswerOutcome
from lobu_actors.store.records import Accepted, ApiKey, NewTurn, Refused
from lobu_actors.store.standby_records import NextRun
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import EventReader, Running, running

KEY = "echo_ann_acme"
PATH = f"/api/v1/agents/{KEY}"


class MoodyStore(MemoryStore):
    """Can be away, can lose the answers of its commits, and refuses what it is told to."""

    away = False
    lost_answers = 0
    refuse: str | None = None
    calls = 0
    answer_outcome = AnswerOutcome.NOT_FOUND

    async def answer_question(
        self, ref: ConversationRef, question_id: str, *, answer: str, answered_by: str, answer_id: str | None = None
    ) -> AnswerOutcome:
        return self.answer_outcome

    async def accept_turn(self, turn: NewTurn, *, max_owed: int, run: NextRun | None = None) -> Accepted | Refused:
        if self.away:
            raise StoreUnavailable("away")
        if self.refuse is not None:
            return Refused(self.refuse)
        self.calls += 1
        outcome = await super().accept_turn(turn, max_owed=max_owed, run=run)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreOutcomeUnknown("the answer was lost")
        return outcome

    async def find_api_key(self, key_hash: str) -> ApiKey | None:
        if self.away:
            raise StoreUnavailable("away")
        return await super().find_api_key(key_hash)

    async def now(self) -> Any:
        if self.away:
            await trio.sleep_forever()
        return await super().now()


@pytest.fixture
async def moody() -> AsyncIterator[Running]:
    settings = EdgeSettings(ready_seconds=0.05, accept_seconds=3.0, max_owed_turns=3, api_key_cache_seconds=0.0)
    async with running(await EdgeWorld.make(settings, MoodyStore())) as server:
        await server.world.conversation()
        yield server


async def send(server: Running, **body: Any) -> Any:
    async with server.client() as client:
        return await client.post(f"{PATH}/messages", json={"content": "hi"} | body)


async def test_opening_and_its_variants(server: Running) -> None:
    async with server.client() as client:
        plain = (await client.post("/api/v1/agents")).json()
        assert (plain["agentId"], plain["threadId"]) == ("echo_root_acme", None)
        named = (await client.post("/api/v1/agents", json={"thread": "t", "userId": "ann"})).json()
        assert (named["agentId"], named["threadId"]) == ("echo_ann_acme_t", "t")
        fresh = [(await client.post("/api/v1/agents", json={"forceNew": True})).json()["agentId"] for _ in range(2)]
        assert len({*fresh, plain["agentId"]}) == 3
        dry = await client.post("/api/v1/agents", json={"thread": "dry", "dryRun": True})
        assert dry.status_code == 200
        assert dry.json()["agentId"] == "echo_root_acme_dry"
        assert (await client.get("/api/v1/agents/echo_root_acme_dry")).status_code == 404


async def test_key_that_means_another_conversation_is_refused(server: Running) -> None:
    await server.world.conversation("b", user="a")
    async with server.client() as client:
        for body in ({"userId": "a", "thread": "b"}, {"userId": "a", "thread": "b", "dryRun": True}):
            assert (await client.post("/api/v1/agents", json=body)).status_code in {200, 201}
    await server.world.store.open_conversation(ConversationRef("acme", "echo", "echo_x_acme_y_acme"), "x_acme_y")
    async with server.client() as client:
        for extra in ({}, {"dryRun": True}):
            answer = await client.post("/api/v1/agents", json={"userId": "x", "thread": "y_acme"} | extra)
            assert answer.status_code == 409, answer.text


async def test_shown_state(server: Running) -> None:
    ref = await server.world.conversation()
    turn = await server.world.message(ref)
    await server.world.message(ref)
    await (await server.world.owner(ref)).begin(turn)
    async with server.client(server.world.user_key) as client:
        shown = (await client.get(f"/lobu{PATH}")).json()["agent"]
    assert shown.pop("createdAt") <= shown.pop("lastActivity")
    assert shown == {
        "agentId": KEY, "userId": "ann", "status": "running", "hasActiveConnection": False, "queued": 1, "running": 1,
    }  # fmt: skip


async def test_ending_refuses_further_messages_and_may_be_repeated(moody: Running) -> None:
    async with moody.client() as client:
        assert (await client.delete(PATH)).json() == {"success": True, "closed": False}
        assert (await client.delete(PATH)).status_code == 200
        assert len(moody.world.gateway.closes) == 2
        refused = await send(moody)
        assert (refused.status_code, refused.json()["code"]) == (409, "CONVERSATION_CLOSED")
        await (await moody.world.owner(ConversationRef("acme", "echo", KEY))).close()
        assert (await client.delete(PATH)).json() == {"success": True, "closed": True}
        assert len(moody.world.gateway.closes) == 2
        over = await client.get(f"{PATH}/events", headers={"Last-Event-ID": "1"})
        assert over.status_code == 204
        assert (await client.get(PATH)).status_code == 200  # over the same connection
    assert "Content-Length" not in over.headers


async def test_repeated_message_gets_the_same_receipt_and_nothing_new(moody: Running) -> None:
    first = (await send(moody, messageId="m1")).json()
    assert (await send(moody, messageId="m1", content="other")).json() == first
    assert len(moody.world.store.tables.turns) == 1


async def test_own_fields_stay_here_and_others_go_to_the_worker(moody: Running) -> None:
    async with moody.client() as client:
        body = {"message": "hi", "messageId": "m", "onBusy": "steer", "model": "x", "deep": {"a": [1, None]}}
        told_by_nobody = {"files": [{"name": "../../secret"}]}
        assert (await client.post(f"{PATH}/messages", json=body | told_by_nobody)).status_code == 200
    [turn] = moody.world.gateway.hints
    assert (turn.content, turn.on_busy, turn.payload) == ("hi", OnBusy.STEER, {"model": "x", "deep": {"a": [1, None]}})


async def test_full_queue_says_when_to_come_back(moody: Running) -> None:
    positions = [(await send(moody)).json()["position"] for _ in range(3)]
    assert positions == [0, 1, 2]
    refused = await send(moody)
    assert (refused.status_code, refused.json()["code"]) == (429, "QUEUE_FULL")
    assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("reason", "status", "code"), [("busy", 409, "CONVERSATION_BUSY"), ("missing", 404, "CONVERSATION_NOT_FOUND")]
)
async def test_refusals_of_the_store(moody: Running, reason: str, status: int, code: str) -> None:
    moody.world.store.refuse = reason
    refused = await send(moody, onBusy="reject")
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert not moody.world.gateway.hints


async def test_lost_answer_is_asked_for_again_and_hinted_once(moody: Running) -> None:
    moody.world.store.lost_answers = 2
    assert (await send(moody)).status_code == 200
    assert moody.world.store.calls == 3
    assert len(moody.world.gateway.hints) == 1


async def test_answer_that_stays_lost_gives_the_id_to_ask_with(moody: Running) -> None:
    moody.world.store.lost_answers = 1000
    with capture_logs() as logs:
        refused = await send(moody)
    assert (refused.status_code, refused.json()["code"]) == (503, "STORE_UNAVAILABLE")
    assert refused.headers["retry-after"]
    told = [log["error"] for log in logs if (log["event"], log["log_level"]) == ("store unavailable", "warning")]
    assert told == ["the store did not answer in time"]
    moody.world.store.lost_answers = 0
    again = await send(moody, messageId=refused.json()["details"]["messageId"])
    assert again.status_code == 200
    assert len(moody.world.store.tables.turns) == 1


async def test_store_away(moody: Running) -> None:
    moody.world.store.away = True
    async with moody.client() as client:
        for method, path in (("GET", PATH), ("DELETE", PATH), ("GET", "/health/ready")):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.json()["code"]) == (503, "STORE_UNAVAILABLE")
        assert (await client.get("/health/live")).status_code == 200
        stream = await client.get(f"{PATH}/events")  # told to come back; a refusal would close an EventSource for good
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.text == 'event: drain\ndata: {"reconnectInMs":500}\n\n'


async def test_hints_come_in_the_order_of_commits(server: Running) -> None:
    await server.world.conversation()
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(partial(send, server, messageId=f"m{number}"))
    assert [turn.position for turn in server.world.gateway.hints] == list(range(40))


async def test_cancel_is_a_staged_receipt(server: Running) -> None:
    ref = await server.world.conversation()
    await server.world.message(ref, message_id="m1")
    gateway = server.world.gateway
    async with server.client() as client:
        accepted = await client.post(f"{PATH}/cancel", json={"messageId": "m1"})
        assert (accepted.status_code, accepted.json()) == (202, {"success": True, "stage": "accepted"})
        assert (await client.post(f"{PATH}/cancel")).status_code == 202
        assert gateway.cancels == [(ref, "m1"), (ref, None)]
        gateway.cancel_result = CancelResult.NOTHING_TO_CANCEL
        late = await client.post(f"{PATH}/cancel", json={"messageId": "m1"})
        assert (late.status_code, late.json()["stage"]) == (202, "nothing-to-cancel")
        unknown = await client.post(f"{PATH}/cancel", json={"messageId": "m2"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "MESSAGE_NOT_FOUND")
        gateway.cancel_result = CancelResult.UNREACHABLE
        assert (await client.post(f"{PATH}/cancel")).status_code == 503


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (AnswerOutcome.ACCEPTED, 200, None),
        (AnswerOutcome.ALREADY_ANSWERED, 409, "QUESTION_ANSWERED"),
        (AnswerOutcome.WITHDRAWN, 409, "QUESTION_WITHDRAWN"),
        (AnswerOutcome.NOT_FOUND, 404, "QUESTION_NOT_FOUND"),
    ],
)
async def test_answers_to_questions(moody: Running, outcome: AnswerOutcome, status: int, code: str | None) -> None:
    moody.world.store.answer_outcome = outcome
    async with moody.client() as client:
        answer = await client.post(f"{PATH}/questions/q1/answer", json={"answer": "yes"})
    assert (answer.status_code, answer.json().get("code")) == (status, code)
    assert moody.world.gateway.answers == ([("q1", "yes")] if status == 200 else [])


async def test_draining_shows_in_readiness_and_ends_streams_but_takes_messages(server: Running) -> None:
    ref = await server.world.conversation()
    reader = await EventReader.open(server, f"{PATH}/events")
    await reader.until(b"connected")
    server.world.gateway.drain()
    await reader.to_end()
    await reader.close()
    assert [frame.event for frame in reader.frames] == ["connected", "drain"]
    late = await EventReader.open(server, f"{PATH}/events")
    await late.to_end()
    await late.close()
    assert [frame.event for frame in late.frames] == ["connected", "drain"]
    async with server.client() as client:
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "DRAINING")
        assert (await client.post(f"{PATH}/messages", json={"content": "x"})).status_code == 200
    assert ref in {turn.ref for turn in server.world.gateway.hints}


async def test_revoked_key_stops_working_and_new_one_works_at_once(moody: Running) -> None:
    store, key = moody.world.store, "lobu_" + "n" * 40
    async with moody.client(key) as client:
        assert (await client.get(PATH)).status_code == 401
        await store.put_api_key(ApiKey(api_key_hash(key), "acme", "ann", Role.USER, "new"))
        assert (await client.get(PATH)).status_code == 200
        assert await store.revoke_api_key("acme", api_key_hash(key)) == 1
        assert (await client.get(PATH)).status_code == 401


async def test_head_options_metrics_and_docs(server: Running) -> None:
    await server.world.conversation()
    async with server.client() as client:
        head = await client.head(f"{PATH}/events")
        assert (head.status_code, head.content) == (200, b"")
        assert "POST" in (await client.options(f"{PATH}/messages")).headers["allow"]
        assert b"lobu_edge_requests_total" in (await client.get("/metrics")).content
        assert (await client.get("/openapi.json")).json()["openapi"] == "3.1.0"
        page = await client.get("/lobu/docs")
        assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_broken_stream_is_cut_and_not_ended(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = await server.world.conversation()
    reader = await EventReader.open(server, f"/api/v1/agents/{ref.conversation_id}/events")
    await reader.close()

    next_chunk = Subscription.next_chunk

    async def broken(self: Subscription) -> bytes | None:
        if self._greeted:
            raise StreamBroken("for the test")
        return await next_chunk(self)

    monkeypatch.setattr(Subscription, "next_chunk", broken)
    async with await server.connect() as stream:
        request = f"GET {PATH}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.world.admin_key}\r\n\r\n"
        await stream.send_all(request.encode())
        with trio.fail_after(5):
            raw = b"".join([part async for part in stream])
    assert raw.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding: chunked" in raw.lower()
    assert not raw.endswith(b"0\r\n\r\n")
