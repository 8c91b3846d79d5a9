"""Every guarded write of the store, each with the state in which it would take effect if its lease were still held.

For `tests.stale_writers`. `KINDS` and `SINGLETON_KINDS` together name each statement that ends in `_if_lease_held` or
`_if_held`; a test compares that with the queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import attrs
from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import DeliveryStatus, RunStatus, TurnStatus
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.records import (
    Accepted,
    Activation,
    Direction,
    FinishRun,
    Lease,
    MarkerDeadline,
    NewEvent,
    NewFile,
    NewSession,
    NewTurn,
    RequeueRun,
    Segment,
    StartRun,
    Turn,
    TurnEnd,
)
from lobu_actors.store.singleton_records import NewDelivery, SingletonLease
from lobu_actors.store.standby_records import NextRun

DEADLINE_SECONDS = 600.0


@attrs.frozen
class Scene:
    """What an owner has when it is paused: a turn that runs and one behind it, one that waits, or nothing."""

    lease: Lease
    generation: int
    running: Turn | None = None
    run_id: str = ""
    queued: Turn | None = None
    mark: str = attrs.field(factory=new_id)  # names what this race writes


@attrs.frozen
class Kind:
    """A guarded write. `needs`: running, queued or empty. `seen`: what a successor finds if it had landed before."""

    name: str
    statements: tuple[str, ...]
    needs: str
    write: Callable[[PostgresStore, Scene], Awaitable[Any]]
    seen: Callable[[Activation, Scene], bool] = lambda activation, scene: True
    leaves_a_turn: bool = False  # that waits, when it is refused

    def landed(self, result: object) -> bool:
        return result is not None and result is not False and result != set()


def end_of(turn: Turn, run_id: str | None, segment: Segment | None = None, *, failed: bool = False) -> FinishRun:
    if failed:
        data = events.agent_error(turn.message_id, [turn.message_id], "MY_CODE", "as asked", None, 1)
        ends = (TurnEnd(turn.turn_id, EventType.AGENT_ERROR, data),)
        return FinishRun(run_id, RunStatus.FAILED, TurnStatus.FAILED, ends, error_code="MY_CODE")
    data = events.complete(turn.message_id, [turn.message_id], "done", None, 1)
    ends = (TurnEnd(turn.turn_id, EventType.COMPLETE, data),)
    return FinishRun(run_id, RunStatus.COMPLETED, TurnStatus.COMPLETED, ends, segment=segment)


def start_of(turn: Turn) -> StartRun:
    """With a `restart` event, as every attempt behind the first has."""
    return StartRun(new_id(), (turn.turn_id,), turn.attempt, 1, 2.5, (events.restart(turn.message_id, 2, "retry"),))


def whole(data: bytes, generation: int) -> Segment:
    return Segment(generation, 0, len(data), hashlib.sha256(data).hexdigest(), data)


def _running(scene: Scene) -> Turn:
    assert scene.running is not None
    return scene.running


def _queued(scene: Scene) -> Turn:
    assert scene.queued is not None
    return scene.queued


def _still_owes(activation: Activation, turn: Turn) -> bool:
    return turn.turn_id in {owed.turn_id for owed in activation.owed}


def _question(scene: Scene) -> NewQuestion:
    turn = _running(scene)
    data = events.question(scene.mark, "which?", None, turn.message_id)
    return NewQuestion(scene.mark, "q", scene.run_id, turn.turn_id, "which?", None, data, 1, 0)


async def _finish(store: PostgresStore, scene: Scene) -> object:
    segment = whole(scene.mark.encode(), scene.generation)
    return await store.finish_run(scene.lease, end_of(_running(scene), scene.run_id, segment))


async def _finish_with_file(store: PostgresStore, scene: Scene) -> object:
    end = replace(end_of(_running(scene), scene.run_id), file_ids=(await _sealed(store, scene),))
    return await store.finish_run(scene.lease, end)


async def _sealed(store: PostgresStore, scene: Scene) -> str:
    """A file that belongs to no turn yet."""
    ref, file_id = scene.lease.ref, new_id()
    await store.begin_file(NewFile(ref, file_id, Direction.OUT, "a", "x/y", 600))
    assert await store.seal_file(ref.organization_id, file_id, size=0, sha256="x")
    return file_id


async def _extend(store: PostgresStore, scene: Scene) -> object:
    organization_id = scene.lease.ref.organization_id
    deadline = MarkerDeadline(organization_id, _running(scene).turn_id, scene.run_id, DEADLINE_SECONDS)
    return await store.extend_deadlines(scene.lease.host_id, [deadline])


async def _accept_and_begin(store: PostgresStore, scene: Scene) -> object:
    """Anybody may accept; what the lease guards is the run."""
    return await _accept(store, scene)


async def _accept_with_file(store: PostgresStore, scene: Scene) -> object:
    return await _accept(store, scene, (await _sealed(store, scene),))


async def _accept(store: PostgresStore, scene: Scene, file_ids: tuple[str, ...] = ()) -> object:
    run = NextRun(scene.lease, scene.mark, 1, 2.5)
    turn = NewTurn(scene.lease.ref, new_id(), new_id(), "hello", file_ids=file_ids)
    accepted = await store.accept_turn(turn, max_owed=10, run=run)
    assert isinstance(accepted, Accepted)
    return scene.mark if accepted.begun else None


def _runs_what_began_with_it(found: Activation, at: Scene) -> bool:
    return found.live_run is not None and found.live_run.run_id == at.mark


KINDS = (
    Kind(
        "accept_turn, with a run",
        ("accept_turns_if_open_and_begin_runs_if_lease_held",),
        "empty",
        _accept_and_begin,
        _runs_what_began_with_it,
        leaves_a_turn=True,
    ),
    Kind(
        "accept_turn, with a run and a file",
        ("accept_turns_with_files_if_open_and_begin_runs_if_lease_held",),
        "empty",
        _accept_with_file,
        _runs_what_began_with_it,
        leaves_a_turn=True,
    ),
    Kind(
        "start_run",
        ("start_runs_if_lease_held",),
        "queued",
        lambda store, at: store.start_run(at.lease, start_of(_queued(at))),
        lambda found, at: found.live_run is not None and found.live_run.turn_ids == (_queued(at).turn_id,),
    ),
    Kind(
        "finish_run",
        ("finish_runs_if_lease_held",),
        "running",
        _finish,
        lambda found, at: not _still_owes(found, _running(at)),
    ),
    Kind(
        "finish_run, with a file",
        ("finish_runs_with_files_if_lease_held",),
        "running",
        _finish_with_file,
        lambda found, at: not _still_owes(found, _running(at)),
    ),
    Kind(
        "finish_run, of a turn that waits",
        ("finish_runs_if_lease_held",),
        "queued",
        lambda store, at: store.finish_run(at.lease, end_of(_queued(at), None, failed=True)),
        lambda found, at: not _still_owes(found, _queued(at)),
    ),
    Kind(
        "requeue_run",
        ("requeue_run_if_lease_held",),
        "running",
        lambda store, at: store.requeue_run(at.lease, RequeueRun(at.run_id, (_running(at).turn_id,), failed=True)),
        lambda found, at: found.live_run is None,
    ),
    Kind(
        "adopt_run",
        ("adopt_run_if_lease_held",),
        "running",
        lambda store, at: store.adopt_run(at.lease, at.run_id),
    ),
    Kind(
        "request_cancel",
        ("request_cancel_if_lease_held",),
        "running",
        lambda store, at: store.request_cancel(at.lease, at.run_id),
        lambda found, at: found.live_run is not None and found.live_run.cancel_requested,
    ),
    Kind(
        "join_run",
        ("join_run_if_lease_held",),
        "running",
        lambda store, at: store.join_run(at.lease, at.run_id, _queued(at).turn_id),
        lambda found, at: found.live_run is not None and _queued(at).turn_id in found.live_run.turn_ids,
    ),
    Kind(
        "leave_run",
        ("leave_run_if_lease_held",),
        "running",
        lambda store, at: store.leave_run(at.lease, at.run_id, (_queued(at).turn_id,)),
    ),
    Kind(
        "ask_question",
        ("ask_question_if_lease_held",),
        "running",
        lambda store, at: store.ask_question(at.lease, _question(at)),
    ),
    Kind(
        "append_event",
        ("append_event_if_lease_held",),
        "running",
        lambda store, at: store.append_event(
            at.lease, NewEvent(EventType.QUESTION, {"questionId": at.mark}, turn_id=_running(at).turn_id)
        ),
    ),
    Kind(
        "mend_markers",
        ("mend_markers_if_lease_held",),
        "queued",
        lambda store, at: store.mend_markers(at.lease, [_queued(at).turn_id]),
    ),
    Kind(
        "reset_session",
        ("reset_session_if_lease_held",),
        "queued",
        lambda store, at: store.reset_session(at.lease, NewSession(at.generation, summary=at.mark)),
        lambda found, at: found.conversation.generation == at.generation + 1,
    ),
    Kind(
        "purge_snapshots",
        ("purge_snapshots_if_lease_held",),
        "queued",
        lambda store, at: store.purge_snapshots(at.lease),
        lambda found, at: found.snapshot is None,
    ),
    Kind(
        "close_conversation",
        ("mark_closing_if_lease_held", "close_conversation_if_lease_held"),
        "empty",
        lambda store, at: store.close_conversation(at.lease, "deleted"),
        lambda found, at: found.conversation.closed,
    ),
    Kind("extend_deadlines", ("extend_deadlines_if_lease_held",), "running", _extend),
    Kind("release", ("release_lease_if_held",), "queued", lambda store, at: store.release(at.lease)),
)
READS = ("load_owed_if_lease_held",)  # guarded, but not writes


# --- singletons


@attrs.frozen
class SingletonScene:
    """A watcher with a claimed firing, a delivery that is owed and one that has ended."""

    lease: SingletonLease
    ref: ConversationRef
    claimed_at: datetime
    owed_id: str = attrs.field(factory=new_id)
    ended_id: str = attrs.field(factory=new_id)
    mark: str = attrs.field(factory=new_id)

    def delivery(self, delivery_id: str) -> NewDelivery:
        return NewDelivery(delivery_id, self.ref, f"m{delivery_id}", {"chat": 1}, "refused")


@attrs.frozen
class SingletonKind:
    name: str
    statement: str
    write: Callable[[PostgresStore, SingletonScene], Awaitable[Any]]

    def landed(self, result: object) -> bool:
        return bool(result) or result == []


WATCHERS = {"claimed": "every minute", "free": "every hour"}

SINGLETON_KINDS = (
    SingletonKind(
        "begin_watchers",
        "begin_watchers_if_lease_held",
        lambda store, at: store.begin_watchers(at.lease, {at.mark: "of a stale writer"}),
    ),
    SingletonKind(
        "claim_firing",
        "claim_firing_if_lease_held",
        lambda store, at: store.claim_firing(at.lease, "free", at.claimed_at + timedelta(days=1000)),
    ),
    SingletonKind(
        "confirm_firing",
        "confirm_firing_if_lease_held",
        lambda store, at: store.confirm_firing(at.lease, "claimed", at.claimed_at),
    ),
    SingletonKind(
        "owe_delivery",
        "owe_delivery_if_lease_held",
        lambda store, at: store.owe_delivery(at.lease, at.delivery(at.mark)),
    ),
    SingletonKind(
        "record_delivery",
        "record_delivery_if_lease_held",
        lambda store, at: store.record_delivery(
            at.lease, at.owed_id, DeliveryStatus.DELIVERED, parts_sent=1, error=None
        ),
    ),
    SingletonKind(
        "forget_deliveries",
        "forget_deliveries_if_lease_held",
        lambda store, at: store.forget_deliveries(at.lease, older_than_seconds=-60, limit=1000),
    ),
    SingletonKind(
        "release_singleton",
        "release_singleton_if_held",
        lambda store, at: store.release_singleton(at.lease),
    ),
)
