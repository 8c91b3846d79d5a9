"""Rows that this version cannot read: what the schema refuses, and that the rest hides no other turn and can end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import psycopg
import pytest

from lobu_actors.contract.events import EventType, agent_error
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.errors import TurnUnreadable
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import (
    Accepted,
    Activation,
    FinishRun,
    Lease,
    NewTurn,
    RequeueRun,
    StartRun,
    Turn,
    TurnEnd,
)
from tests.conftest import admin

# As a newer version's migration would: the constraint knows more than this program.
WIDER = "ALTER TABLE turn DROP CONSTRAINT {}"
SET = "UPDATE turn SET {} WHERE message_id = 'm2'"
UNREADABLE = {
    "on_busy is not one that this version knows": (WIDER.format("turn_on_busy"), SET.format("on_busy = 'defer'")),
    "status is not one that this version knows": (
        WIDER.format("turn_status"),
        WIDER.format("turn_ended_when_terminal"),
        SET.format("status = 'paused'"),
    ),
    "payload is not an object": (SET.format("payload = '[1]'"),),
    "payload cannot be decoded": (SET.format("""payload = ('{"n": 1' || repeat('0', 5000) || '.5e1}')::jsonb"""),),
    "context is not an object": (
        WIDER.format("turn_guardrail_context"),
        SET.format("guardrail_code = 'C', guardrail_error = 'e', guardrail_context = '\"x\"'"),
    ),
}


@attrs.frozen
class Place:
    store: PostgresStore
    ref: ConversationRef
    lease: Lease
    turns: list[Turn]


@pytest.fixture
async def place(store: PostgresStore, make_scene: Callable[..., Awaitable[Any]]) -> Place:
    """Three turns m1 to m3, owed."""
    ref = (await make_scene(store)).ref
    turns = []
    for number in (1, 2, 3):
        accepted = await store.accept_turn(NewTurn(ref, f"t{number}", f"m{number}", "hello"), max_owed=9)
        assert isinstance(accepted, Accepted)
        turns.append(accepted.turn)
    await store.register_host("h1", name="h1", link_url=None, version="1", ttl_seconds=600)
    activation = await store.activate(ref, "h1")
    assert isinstance(activation, Activation)
    return Place(store, ref, activation.lease, turns)


@pytest.mark.parametrize("reason", UNREADABLE)
async def test_it_is_told_apart_and_can_be_ended(place: Place, database_url: str, reason: str) -> None:
    for statement in UNREADABLE[reason]:
        admin(database_url, statement)
    first, _, third = place.turns
    found = CorruptMarker(place.ref, "t2", "m2", reason, contradicts=False)
    assert await place.store.load_owed(place.lease, limit=9) == [first, found, third]
    with pytest.raises(TurnUnreadable, match=reason):
        await place.store.find_turn(place.ref, "m2")
    data = agent_error("m2", ["m2"], "MARKER_CORRUPT", "unreadable", None, 1)
    end = FinishRun(None, RunStatus.FAILED, TurnStatus.FAILED, (TurnEnd("t2", EventType.AGENT_ERROR, data),))
    [event] = await place.store.finish_run(place.lease, end) or []
    assert (event.turn_id, event.data) == ("t2", data)
    assert await place.store.load_owed(place.lease, limit=9) == [first, third]
    assert admin(database_url, "SELECT status FROM turn WHERE message_id = 'm2'") == [("failed",)]


async def test_a_run_that_is_put_back_gives_it_too(place: Place, database_url: str) -> None:
    assert await place.store.start_run(place.lease, StartRun("r", ("t1", "t2"), 1, None, None)) is not None
    admin(database_url, SET.format("payload = '[1]'"))
    requeue = RequeueRun("r", ("t1", "t2"), failed=False)
    for _ in range(2):
        first, second = await place.store.requeue_run(place.lease, requeue) or []
        assert isinstance(first, Turn)
        assert second == CorruptMarker(place.ref, "t2", "m2", "payload is not an object", contradicts=False)


@pytest.mark.parametrize(
    "statement",
    [
        SET.format("status = 'paused'"),
        SET.format("on_busy = 'defer'"),
        SET.format("payload = NULL"),
        SET.format("content = NULL"),
        SET.format("accepted_at = NULL"),
        SET.format("guardrail_code = 'C'"),
        SET.format("guardrail_context = '{}'"),
        SET.format("guardrail_code = 'C', guardrail_error = 'e', guardrail_context = '[]'"),
        "INSERT INTO turn_marker SELECT * FROM turn_marker",
        "UPDATE turn_marker SET conversation_id = NULL",
    ],
)
async def test_the_schema_refuses(place: Place, database_url: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        admin(database_url, statement)
