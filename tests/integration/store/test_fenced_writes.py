"""Each write of a conversation's actor that finds its lease gone says so, and shows in `lobu_fenced_writes_total`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lobu_actors import telemetry
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation import session_messages as about
from lobu_actors.conversation.adoption_messages import AdoptRun
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.environment import FileLimits
from lobu_actors.conversation.marks import Marks
from lobu_actors.conversation.placement import HereAlways
from lobu_actors.conversation.promises import Promises
from lobu_actors.conversation.recent import Recent
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.writes import Writes
from lobu_actors.gateway.standby import Standbys
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Lease, NewSession, NewTurn, StartRun, Turn


class NoSessionFile:
    """Of a conversation without one; only the store is asked."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def lay_out(self) -> None: ...

    async def begin_anew(self, lease: Lease, payload: object) -> int | None:
        return await self._store.reset_session(lease, NewSession(1))


@pytest.fixture
async def scene(store: PostgresStore, make_scene: Callable[..., Awaitable[Any]]) -> tuple[Writes, str, Turn, Turn]:
    """Of an owner whose lease was lost a moment ago: its run, the turn of that, and one that waits."""
    ref = (await make_scene(store)).ref
    for host in ("h1", "h2"):
        await store.register_host(host, name=host, link_url=None, version="1", ttl_seconds=600)
    lease = (await store.activate(ref, "h1")).lease
    running, queued = [
        (await store.accept_turn(NewTurn(ref, new_id(), new_id(), "hello"), max_owed=9)).turn for _ in range(2)
    ]
    run_id = new_id()
    assert await store.start_run(lease, StartRun(run_id, (running.turn_id,), 1, None, None)) is not None
    await store.declare_host_dead("h1")
    await store.activate(ref, "h2")
    environment = SimpleNamespace(
        store=store,
        patience=Patience(5),
        placement=HereAlways(),
        max_owed_turns=9,
        clock_ms=lambda: 0,
        workspaces=SimpleNamespace(of=lambda ref: None),
        file_limits=FileLimits(),
        spans=None,
        recent=Recent(),
        promises=Promises(),
        running=RunningClock(),
        standbys=Standbys(),
    )
    output = SimpleNamespace(position=(1, 0), final_text=lambda text: text or "")
    workspace = environment.workspaces.of(lease.ref)
    return Writes(environment, lease, workspace, NoSessionFile(store), output, Marks()), run_id, running, queued


FAILED = (TurnStatus.FAILED, RunStatus.FAILED, "MY_CODE")
WRITES: dict[str, Callable[[Writes, str, Turn, Turn], Awaitable[object]]] = {
    "start_run": lambda writes, run_id, running, queued: writes.begin(m.BeginRun(new_id(), (queued,), 1, None, None)),
    "adopt_run": lambda writes, run_id, running, queued: writes.adopt(AdoptRun(run_id, running.message_id, 1)),
    "request_cancel": lambda writes, run_id, running, queued: writes.request_cancel(run_id),
    "finish_run": lambda writes, run_id, running, queued: writes.finish(m.FinishTurns(run_id, (running,), *FAILED)),
    "leave_run": lambda writes, run_id, running, queued: writes.finish(
        m.FinishTurns(run_id, (running,), *FAILED, returned=(queued,))
    ),
    "requeue_run": lambda writes, run_id, running, queued: writes.requeue(
        m.RequeueTurns(run_id, (running,), True, "HOST_LOST")
    ),
    "join_run": lambda writes, run_id, running, queued: writes.join(m.JoinRun(run_id, queued)),
    "ask_question": lambda writes, run_id, running, queued: writes.ask(
        asking.RecordQuestion(running, run_id, new_id(), "q", "which?", None)
    ),
    "append_event": lambda writes, run_id, running, queued: writes.record(m.RecordCancelStage((running,), "asked")),
    "load_owed": lambda writes, run_id, running, queued: writes.load_owed(),
    "mend_markers": lambda writes, run_id, running, queued: writes.mend_markers((queued.turn_id,)),
    "close_conversation": lambda writes, run_id, running, queued: writes.close(),
    "reset_session": lambda writes, run_id, running, queued: writes.reset(about.ResetSession(queued)),
    "purge_snapshots": lambda writes, run_id, running, queued: writes.purge_snapshots(),
}


@pytest.mark.parametrize("statement", WRITES)
async def test_a_write_without_its_lease_is_counted(scene: Any, statement: str) -> None:
    writes, run_id, running, queued = scene
    counter = telemetry.FENCED_WRITES.labels(statement)
    before = counter._value.get()
    assert isinstance(await WRITES[statement](writes, run_id, running, queued), m.LeaseLost)
    assert counter._value.get() == before + 1
