"""History, reset and snapshot routes over the memory store: who may, what is refused, and what comes back."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

import pytest

from edge.run_tokens import sign_run
from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy
from lobu_actors.store.records import Segment
from supervisor.workspaces.workspace import HostWorkspaces, workspace_name
from tests.fakes.edge_world import EdgeWorld

SNAPSHOT = "/worker/transcript/snapshot"


def session_of(texts: list[str]) -> bytes:
    lines = [{"type": "session", "version": 3, "id": "s"}]
    for number, text in enumerate(texts):
        message = {"role": "assistant" if number % 2 else "user", "content": text, "timestamp": 1000 + number}
        if number % 2:
            message["usage"] = {"input": 2, "output": 3}
        lines.append(
            {
                "type": "message",
                "id": f"e{number}",
                "parentId": f"e{number - 1}" if number else None,
                "message": message,
            }
        )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Caller:
    def __init__(self, world: EdgeWorld, credential: str) -> None:
        self._client = world.app.test_client()
        self._headers = {"Authorization": f"Bearer {credential}"}

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = self._headers | {"Content-Length": str(len(data)), "Content-Type": "application/json"}
        response = await self._client.open(quote(path, safe="/?&=%"), method=method, headers=headers, data=data)
        return response.status_code, json.loads(await response.get_data())


@pytest.fixture
async def world() -> EdgeWorld:
    return await EdgeWorld.make(EdgeSettings(linger_seconds=0.05, max_snapshot_bytes=10_000, max_message_bytes=2_000))


@pytest.fixture
async def ref(world: EdgeWorld) -> ConversationRef:
    return await world.conversation()


@pytest.fixture
def ann(world: EdgeWorld) -> Caller:
    return Caller(world, world.user_key)


async def pages(call: Caller, key: str, limit: int) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        status, body = await call("GET", f"/api/v1/agents/{key}/session/messages?limit={limit}{cursor}")
        assert status == 200, body
        found += [message["content"] for message in body["messages"]]
        if not body["hasMore"]:
            return found
        cursor = f"&cursor={body['nextCursor']}"


TEXTS = [f"text {number}" for number in range(7)]


async def test_pages_of_every_size_give_the_same_messages(world: EdgeWorld, ref: ConversationRef, ann: Caller) -> None:
    world.gateway.sessions[ref] = session_of(TEXTS) + b'{"type":"mess'
    for limit in (1, 2, 3, 7, 200):
        assert await pages(ann, ref.conversation_id, limit) == TEXTS
    _, body = await ann("GET", f"/lobu/api/v1/agents/{ref.conversation_id}/session/messages")
    assert body["messages"][1] == {
        "id": "e1", "role": "assistant", "content": "text 1", "timestamp": 1001, "usage": {"input": 2, "output": 3},
    }  # fmt: skip


async def test_a_cursor_at_the_end_goes_on_when_the_session_has_grown(
    world: EdgeWorld, ref: ConversationRef, ann: Caller
) -> None:
    path = f"/api/v1/agents/{ref.conversation_id}/session/messages"
    world.gateway.sessions[ref] = session_of(TEXTS[:5])
    _, body = await ann("GET", path)
    assert body["hasMore"] is False
    world.gateway.sessions[ref] = session_of(TEXTS)
    _, more = await ann("GET", f"{path}?cursor={body['nextCursor']}")
    assert [message["content"] for message in more["messages"]] == TEXTS[5:]
    _, none = await ann("GET", f"{path}?cursor={more['nextCursor']}")
    assert (none["messages"], none["nextCursor"], none["hasMore"]) == ([], more["nextCursor"], False)


async def test_an_empty_conversation_has_an_empty_history(ref: ConversationRef, ann: Caller) -> None:
    status, body = await ann("GET", f"/api/v1/agents/{ref.conversation_id}/session/messages")
    assert (status, body) == (200, {"success": True, "messages": [], "nextCursor": None, "hasMore": False})
    _, body = await ann("GET", f"/api/v1/agents/{ref.conversation_id}/session/stats")
    assert (body["stats"]["messages"], body["stats"]["bytes"], body["stats"]["usage"]) == (0, 0, None)


async def test_stats_count(world: EdgeWorld, ref: ConversationRef, ann: Caller) -> None:
    whole = session_of(TEXTS) + b"nonsense\n"
    world.gateway.sessions[ref] = whole + b"torn"
    _, body = await ann("GET", f"/api/v1/agents/{ref.conversation_id}/session/stats")
    assert body["stats"] == {
        "generation": 1, "messages": 7, "messagesByRole": {"user": 4, "assistant": 3}, "entries": 8, "skippedLines": 1,
        "bytes": len(whole), "usage": {"input": 6, "output": 9}, "firstTimestamp": 1000, "lastTimestamp": 1006,
    }  # fmt: skip


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "", "1.5", "٣", "99999"])
async def test_bad_limits_are_refused(ref: ConversationRef, ann: Caller, limit: str) -> None:
    status, body = await ann("GET", f"/api/v1/agents/{ref.conversation_id}/session/messages?limit={limit}")
    assert (status, body["code"], body["details"]) == (400, "INVALID_FIELD", {"field": "limit"})


@pytest.mark.parametrize("cursor", ["", "x", "MS4", "ÿ", "MS4xLjE", "Mi4w", "a" * 3000])
async def test_bad_cursors_are_refused(ref: ConversationRef, ann: Caller, cursor: str) -> None:
    """`Mi4w` is one of another generation."""
    status, body = await ann("GET", f"/api/v1/agents/{ref.conversation_id}/session/messages?cursor={cursor}")
    assert (status, body["code"]) == (400, "INVALID_CURSOR")


async def test_a_history_is_its_own_tenants_and_users(world: EdgeWorld, ref: ConversationRef) -> None:
    world.gateway.sessions[ref] = session_of(TEXTS)
    bob = await world.conversation(user="bob")
    for credential, key in ((world.other_key, ref.conversation_id), (world.user_key, bob.conversation_id)):
        for tail in ("session/messages", "session/stats"):
            assert (await Caller(world, credential)("GET", f"/api/v1/agents/{key}/{tail}"))[0] == 404
        assert (await Caller(world, credential)("POST", f"/api/v1/agents/{key}/reset"))[0] == 404


@pytest.mark.parametrize("key", ["..", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "a%00b", "..%5C..", "." * 400])
async def test_no_key_reaches_the_disk(world: EdgeWorld, key: str, tmp_path: Any) -> None:
    assert (await Caller(world, world.admin_key)("GET", f"/api/v1/agents/{key}/session/messages"))[0] == 404
    name = workspace_name(ConversationRef("acme", "../..", key))
    assert len(name) == 40
    assert set(name) <= set("0123456789abcdef")
    workspaces = HostWorkspaces(tmp_path / "inside")
    _, file = workspaces.ensure(ConversationRef("../..", "/etc", key))
    workspaces.close()
    assert file.startswith(str(tmp_path / "inside") + "/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside"]


# --- reset


async def test_a_reset_is_an_accepted_message(world: EdgeWorld, ref: ConversationRef, ann: Caller) -> None:
    path = f"/api/v1/agents/{ref.conversation_id}"
    status, body = await ann("POST", f"{path}/reset", {"messageId": "once"})
    assert (status, body["messageId"], body["queued"]) == (200, "once", True)
    assert await ann("POST", f"{path}/reset", {"messageId": "once"}) == (status, body)
    [turn, _] = world.gateway.hints
    assert (turn.content, turn.on_busy) == ("/new", OnBusy.INTERRUPT)


@pytest.mark.parametrize(
    ("content", "said", "meant"),
    [
        ("/new", None, "interrupt"),
        (" /new\n", "enqueue", "enqueue"),
        ("/new x", None, "enqueue"),
        ("/NEW", None, "enqueue"),
    ],
)
async def test_the_message_new_interrupts_unless_its_sender_says_otherwise(
    world: EdgeWorld, ref: ConversationRef, ann: Caller, content: str, said: str | None, meant: str
) -> None:
    body = {"content": content} | ({} if said is None else {"onBusy": said})
    assert (await ann("POST", f"/api/v1/agents/{ref.conversation_id}/messages", body))[0] == 200
    assert world.gateway.hints[0].on_busy == meant


# --- another provider


async def test_opening_with_another_provider_begins_a_new_session_once(world: EdgeWorld, ann: Caller) -> None:
    await ann("POST", "/api/v1/agents", {"provider": "one", "model": "one/m"})
    assert world.gateway.hints == []
    await ann("POST", "/api/v1/agents", {"provider": "one"})
    assert world.gateway.hints == []
    for _ in range(2):
        assert (await ann("POST", "/api/v1/agents", {"provider": "two", "model": "two/m"}))[0] == 201
    assert len({turn.turn_id for turn in world.gateway.hints}) == 1
    turn = world.gateway.hints[0]
    assert (turn.content, turn.payload) == ("/new", {"carrySummary": True, "provider": "two", "model": "two/m"})


async def test_a_message_that_names_another_providers_model_comes_behind_the_change(
    world: EdgeWorld, ann: Caller
) -> None:
    _, opened = await ann("POST", "/api/v1/agents", {"model": "one/m"})
    path = f"/api/v1/agents/{opened['agentId']}/messages"
    await ann("POST", path, {"content": "a", "model": "one/other"})
    await ann("POST", path, {"content": "b", "model": "two/m", "messageId": "b", "onBusy": "steer"})
    assert [turn.content for turn in world.gateway.hints] == ["a", "/new", "b"]
    assert world.gateway.hints[2].on_busy is OnBusy.ENQUEUE
    await ann("POST", path, {"content": "b", "model": "three/m", "messageId": "b"})
    assert [turn.content for turn in world.gateway.hints] == ["a", "/new", "b", "b"]


async def test_the_first_provider_that_is_named_is_noted_and_changes_nothing(
    world: EdgeWorld, ref: ConversationRef, ann: Caller
) -> None:
    path = f"/api/v1/agents/{ref.conversation_id}/messages"
    for model in ("one/m", "one/n", "two/m"):
        await ann("POST", path, {"content": model, "model": model})
    assert [turn.content for turn in world.gateway.hints] == ["one/m", "one/n", "/new", "two/m"]


# --- snapshots of workers


@pytest.fixture
async def live(world: EdgeWorld, ref: ConversationRef) -> Any:
    """A live run's owner, its turn and its token."""
    turn, owner = await world.message(ref), await world.owner(ref)
    await owner.begin(turn)
    return owner, turn, sign_run(world.keys, ref, owner.run_id, 60)


def posted(run_id: str, text: str = "a\n", status: str = "completed") -> dict[str, str]:
    return {"runId": run_id, "terminalStatus": status, "snapshotJsonl": text}


async def test_a_worker_posts_once_and_nobody_sees_it_before_the_end(
    world: EdgeWorld, ref: ConversationRef, live: Any
) -> None:
    owner, _, token = live
    worker = Caller(world, token)
    assert (await worker("GET", SNAPSHOT))[0] == 404
    assert await worker("POST", SNAPSHOT, posted(owner.run_id, status="failed")) == (
        200,
        {"success": True, "kept": False},
    )
    assert await worker("POST", SNAPSHOT, posted(owner.run_id)) == (200, {"success": True, "kept": True})
    status, body = await worker("POST", SNAPSHOT, posted(owner.run_id, "other\n"))
    assert (status, body["code"]) == (409, "DUPLICATE_SNAPSHOT")
    assert (await worker("GET", f"/lobu{SNAPSHOT}"))[0] == 404
    assert await world.store.read_posted_snapshot(ref, owner.run_id) == b"a\n"


async def test_a_worker_reads_what_was_stored(world: EdgeWorld, ref: ConversationRef, live: Any) -> None:
    _owner, turn, token = live
    row = world.store.tables.conversation(ref)
    row.segments.append(("r0", Segment(1, 0, 3, hashlib.sha256("é\n".encode()).hexdigest(), "é\n".encode())))
    assert await Caller(world, token)("GET", SNAPSHOT) == (200, {"success": True, "snapshotJsonl": "é\n"})
    assert turn.ref == ref


async def test_another_runs_id_is_forbidden_and_so_is_a_run_that_is_over(world: EdgeWorld, live: Any) -> None:
    owner, turn, token = live
    worker = Caller(world, token)
    assert (await worker("POST", SNAPSHOT, posted("another")))[0] == 403
    await owner.end(turn)
    assert (await worker("POST", SNAPSHOT, posted(owner.run_id)))[0] == 403
    for method in ("GET", "DELETE"):
        assert (await worker(method, SNAPSHOT))[0] == 403
    assert world.gateway.purges == []


async def test_a_token_of_the_same_run_id_elsewhere_opens_nothing(world: EdgeWorld, live: Any) -> None:
    owner, _, _ = live
    for ref in (ConversationRef("rival", "echo", owner.lease.ref.conversation_id), await world.conversation("other")):
        forged = Caller(world, sign_run(world.keys, ref, owner.run_id, 60))
        assert (await forged("POST", SNAPSHOT, posted(owner.run_id)))[0] == 403


async def test_neither_kind_of_token_opens_the_others_door(world: EdgeWorld, ref: ConversationRef, live: Any) -> None:
    owner, _, token = live
    conversation_token, _ = world.keys.sign(ref, "ann", 60)
    for credential in (conversation_token, world.admin_key, world.user_key, "x", sign_run(world.keys, ref, "r", -60)):
        for method, body in (("GET", None), ("DELETE", None), ("POST", posted(owner.run_id))):
            assert (await Caller(world, credential)(method, SNAPSHOT, body))[0] == 401, credential
    for path in ("", "/session/messages", "/events"):
        assert (await Caller(world, token)("GET", f"/api/v1/agents/{ref.conversation_id}{path}"))[0] == 401


async def test_deleting_asks_the_owner(world: EdgeWorld, ref: ConversationRef, live: Any) -> None:
    owner, _, token = live
    world.gateway.purge_result = 3
    assert await Caller(world, token)("DELETE", SNAPSHOT) == (200, {"success": True, "deleted": 3})
    assert world.gateway.purges == [(ref, owner.run_id)]
    world.gateway.purge_result = None
    assert (await Caller(world, token)("DELETE", SNAPSHOT))[0] == 503


async def test_a_snapshot_may_be_larger_than_a_message_but_only_from_a_run(world: EdgeWorld, live: Any) -> None:
    owner, _, token = live
    large = posted(owner.run_id, "x" * 9_000 + "\n")
    assert (await Caller(world, world.user_key)("POST", SNAPSHOT, large))[0] in (401, 413)
    assert (await Caller(world, token)("POST", SNAPSHOT, posted(owner.run_id, "x" * 11_000)))[0] == 413
    assert (await Caller(world, token)("POST", SNAPSHOT, posted(owner.run_id, "x" * 30_000)))[0] == 413
    assert (await Caller(world, token)("POST", SNAPSHOT, large))[0] == 200


@pytest.mark.parametrize("change", [{"snapshotJsonl": 3}, {"terminalStatus": None}, {"snapshotJsonl": None}])
async def test_a_post_without_its_fields_is_refused(world: EdgeWorld, live: Any, change: dict[str, Any]) -> None:
    owner, _, token = live
    status, body = await Caller(world, token)("POST", SNAPSHOT, posted(owner.run_id) | change)
    assert (status, body["code"]) == (400, "INVALID_FIELD")
