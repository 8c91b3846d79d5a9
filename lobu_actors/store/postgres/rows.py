"""Turns rows into records and records into parameters. Owns the order of columns that the queries select."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import msgspec

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import (
    TERMINAL_TURN_STATUSES,
    HostState,
    OnBusy,
    Role,
    RunStatus,
    TurnStatus,
)
from lobu_actors.store.batch import Batch
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.driver import Row
from lobu_actors.store.errors import TurnUnreadable
from lobu_actors.store.link_records import Links, PeerLink
from lobu_actors.store.pool import Pool
from lobu_actors.store.queries import query
from lobu_actors.store.records import (
    Agent,
    ApiKey,
    Conversation,
    Event,
    Host,
    Json,
    Lease,
    RunRecord,
    SnapshotMark,
    Turn,
    Verdict,
)

Params = dict[str, Any]
E = TypeVar("E", bound=StrEnum)

SHARED_PATIENCE = 0.2  # of a call's deadline, for a statement of several callers
AGENT_COLUMNS = 9
CONVERSATION_COLUMNS = 13
MARK_COLUMNS = 4
MARKER_COLUMNS = 4  # before a turn's own, in what loads the queue


class Part:
    """What the parts of the store have in common: the pool, and queries by name."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._batches: dict[str, Batch] = {}

    async def read(self, name: str, params: Params | None = None, *, binary: bool = False) -> list[Row]:
        return await self.pool.fetch(query(name), params, write=False, binary=binary)

    async def write(self, name: str, params: Params | None = None) -> list[Row]:
        return await self.pool.fetch(query(name), params, write=True)

    async def write_urgently(self, name: str, params: Params) -> list[Row]:
        """Behind nobody who waits for a connection. For what is short and rare, and keeps this host its place."""
        return await self.pool.fetch(query(name), params, write=True, urgent=True)

    async def write_together(self, name: str, ref: ConversationRef, item: Params) -> list[Row]:
        """A statement that does for several conversations what it does for one: with whoever else asks for it now.

        `item` holds the conversation's own values. The statement's rows begin with organization and conversation.
        """
        batch = self._batches.get(name)
        if batch is None:
            send = partial(self._send_batch, query(name))
            batch = self._batches[name] = Batch(send, key_columns=2)
        return await batch.rows((ref.organization_id, ref.conversation_id), msgspec.json.encode(without_nulls(item)))

    async def _send_batch(self, statement: bytes, items: str, members: int) -> list[Row]:
        # What several wait for is given up early: one of them may have a row that somebody keeps locked.
        share = 1.0 if members == 1 else SHARED_PATIENCE
        return await self.pool.fetch(statement, {"asked": items}, write=True, share=share)


def without_nulls(params: Params) -> Params:
    """For a statement that takes JSON: what is not there is NULL to it, while a null would be a value of jsonb."""
    return {name: value for name, value in params.items() if value is not None}


def to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def ref_params(ref: ConversationRef) -> Params:
    return {
        "organization_id": ref.organization_id,
        "agent_id": ref.agent_id,
        "conversation_id": ref.conversation_id,
    }


def lease_params(lease: Lease) -> Params:
    return ref_params(lease.ref) | {"host_id": lease.host_id, "epoch": lease.epoch}


def to_api_key(row: Row) -> ApiKey:
    key_hash, organization_id, user_id, role, *rest = row
    return ApiKey(key_hash, organization_id, user_id, Role(role), *rest)


def to_agent(row: Row) -> Agent:
    organization_id, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled = row
    return Agent(organization_id, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled)


def to_conversation(organization_id: str, row: Row) -> Conversation:
    agent_id, conversation_id, *rest = row
    return Conversation(ConversationRef(organization_id, agent_id, conversation_id), *rest)


def to_turn(ref: ConversationRef, row: Row) -> Turn:
    """Raises TurnUnreadable, which names the column."""
    turn_id, message_id, content, on_busy, payload, status, attempt, failures, position, first_seq, at, *rest = row
    error, code, said, context = rest
    verdict = None if code is None else Verdict(code, said, None if context is None else _object("context", context))
    return Turn(
        ref, turn_id, message_id, content, _member("on_busy", OnBusy, on_busy), _object("payload", payload),
        _member("status", TurnStatus, status), attempt, failures, position, first_seq, at, error, verdict,
    )  # fmt: skip


def to_turn_or_corrupt(ref: ConversationRef, row: Row) -> Turn | CorruptMarker:
    """A row of `to_turn`'s that is owed."""
    try:
        return to_turn(ref, row)
    except TurnUnreadable as error:
        return CorruptMarker(ref, row[0], row[1], str(error), contradicts=False)


def to_owed(ref: ConversationRef, row: Row) -> Turn | CorruptMarker:
    """What a marker of `ref` owes: its id, its turn's conversation, whether the log has its end, and the turn."""
    turn_id, agent_id, conversation_id, ended = row[:MARKER_COLUMNS]
    if ended:
        return CorruptMarker(ref, turn_id, turn_id, "its terminal event is in the log already", contradicts=True)
    if agent_id is None:
        return CorruptMarker(ref, turn_id, turn_id, "there is no such turn", contradicts=True)
    if (agent_id, conversation_id) != (ref.agent_id, ref.conversation_id):
        return CorruptMarker(ref, turn_id, turn_id, "its turn is another conversation's", contradicts=True)
    found = to_turn_or_corrupt(ref, row[MARKER_COLUMNS:])
    if isinstance(found, Turn) and found.status in TERMINAL_TURN_STATUSES:
        return CorruptMarker(ref, turn_id, found.message_id, "it has ended without a terminal event", contradicts=False)
    return found


def _member(column: str, kind: type[E], value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise TurnUnreadable(f"{column} is not one that this version knows") from None


def _object(column: str, text: str) -> Json:
    """jsonb arrives as text: what the database takes for JSON may be more than a decoder does (a number of a thousand
    digits, ten thousand brackets), and the driver's own decoding would fail a whole answer for one row."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise TurnUnreadable(f"{column} cannot be decoded") from None
    if not isinstance(value, dict):
        raise TurnUnreadable(f"{column} is not an object")
    return value


def to_event(ref: ConversationRef, row: Row) -> Event:
    seq, turn_id, type_, data, run_id, attempt, text_offset = row
    return Event(ref, seq, turn_id, EventType(type_), data, run_id, attempt, text_offset)


def to_mark(row: Row) -> SnapshotMark:
    return SnapshotMark(*row)


def to_run(row: Row) -> RunRecord:
    run_id, turn_ids, status, *rest = row
    return RunRecord(run_id, tuple(turn_ids), RunStatus(status), *rest)


def to_host(row: Row) -> Host:
    host_id, name, link_url, version, state, *rest = row
    rest[-1] = _to_links(rest[-1])
    return Host(host_id, name, link_url, version, HostState(state), *rest)


def from_links(links: Links) -> str:
    peers = [(link.host_id, link.up, link.lag_seconds) for link in links.worst]
    return to_json({"up": links.up, "down": links.down, "peers": peers})


def _to_links(found: Json) -> Links:
    """Empty in the row of a host of the release before."""
    return Links(found.get("up", 0), found.get("down", 0), tuple(PeerLink(*peer) for peer in found.get("peers", ())))
