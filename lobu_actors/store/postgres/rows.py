"""Turns rows into records and records into parameters. Owns the order of columns that the queries select."""

from __future__ import annotations

from typing import Any

import msgspec

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState, OnBusy, Role, RunStatus, TurnStatus
from lobu_actors.store.driver import Row
from lobu_actors.store.pool import Pool
from lobu_actors.store.queries import query
from lobu_actors.store.records import (
    Agent,
    ApiKey,
    Conversation,
    Event,
    Host,
    Lease,
    RunRecord,
    SnapshotMark,
    Turn,
    Verdict,
)

Params = dict[str, Any]

AGENT_COLUMNS = 9
CONVERSATION_COLUMNS = 13
MARK_COLUMNS = 4


class Part:
    """What the parts of the store have in common: the pool, and queries by name."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def read(self, name: str, params: Params | None = None, *, binary: bool = False) -> list[Row]:
        return await self.pool.fetch(query(name), params, write=False, binary=binary)

    async def write(self, name: str, params: Params | None = None) -> list[Row]:
        return await self.pool.fetch(query(name), params, write=True)


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
    turn_id, message_id, content, on_busy, payload, status, attempt, failures, position, first_seq, at, *rest = row
    error, code, said = rest
    verdict = None if code is None else Verdict(code, said)
    return Turn(
        ref, turn_id, message_id, content, OnBusy(on_busy), payload, TurnStatus(status), attempt, failures, position,
        first_seq, at, error, verdict,
    )  # fmt: skip


def to_event(ref: ConversationRef, row: Row) -> Event:
    seq, turn_id, type_, data, run_id, attempt, text_offset = row
    return Event(ref, seq, turn_id, EventType(type_), data, run_id, attempt, text_offset)


def to_mark(row: Row) -> SnapshotMark:
    return SnapshotMark(*row)


def to_run(row: Row) -> RunRecord:
    run_id, turn_ids, status, host_id, epoch, attempt, worker_pid, worker_started_at = row
    return RunRecord(run_id, tuple(turn_ids), RunStatus(status), host_id, epoch, attempt, worker_pid, worker_started_at)


def to_host(row: Row) -> Host:
    host_id, name, link_url, version, state, expires_in_seconds, leases = row
    return Host(host_id, name, link_url, version, HostState(state), expires_in_seconds, leases)
