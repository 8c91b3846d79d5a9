"""What a host tells of itself: of conversations the asking organization's alone, bounded, and clocks as they stand."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.recent import Recent
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.state import Limits, Question, Run, RunPhase, State
from lobu_actors.runtime.tree import NodeState, TreeNode
from lobu_actors.store.records import Turn
from supervisor.looking import SHOWN, Look
from supervisor.workers.service import WorkerInfo

NOW_MS = 1_700_000_000_000
NOW = 1000.0


def ref(name: str, organization: str = "acme") -> ConversationRef:
    return ConversationRef(organization, "echo", name)


def state(of: ConversationRef, started_at: float = NOW - 10, **changes: Any) -> State:
    at = datetime.fromtimestamp(NOW_MS / 1e3 - 11, UTC)
    turn = Turn(of, f"t-{of.conversation_id}", "m", "x", OnBusy.ENQUEUE, {}, TurnStatus.RUNNING, 1, 0, 0, 0, at)
    run = Run(
        "r", (turn,), 1, RunPhase.LIVE, started_at, heard_at=NOW - 1, progress_at=NOW - 2, text_length=7, **changes
    )
    return State(of, Deadlines(), FailurePolicy(), Limits(), has_agent=True, run=run)


def looked(states: list[State], workers: list[WorkerInfo] = [], recent: Recent | None = None) -> Any:  # noqa: B006
    environment = SimpleNamespace(
        host_id=lambda: "h1",
        clock_ms=lambda: NOW_MS,
        running=RunningClock(lambda: NOW),
        promises=SimpleNamespace(running={one.ref: one for one in states}),
        recent=recent or Recent(),
    )
    processes = SimpleNamespace(snapshot=lambda: tuple(workers), idle=2)
    depths = {one.ref: number for number, one in enumerate(states)}
    look = Look(environment, processes, lambda: depths)  # type: ignore[arg-type]
    actors = TreeNode(
        "conversations", "registry", NodeState.RUNNING, 0, (TreeNode("secret", "actor", NodeState.RUNNING),)
    )
    look.tree = lambda: TreeNode("lobu", "supervisor", NodeState.RUNNING, 0, (actors,))
    return look.status("acme", draining=False)


def test_nothing_of_another_organization_is_told() -> None:
    ours, theirs = ref("c1"), ref("secret", "rival")
    recent = Recent()
    for one in (ours, theirs):
        recent.ended(one, [state(one).run.turns[0]], "CODE", NOW_MS)  # type: ignore[union-attr]
    workers = [WorkerInfo(f"w-{one.organization_id}", "echo", None, one, 1.0, "ready") for one in (ours, theirs)]
    status = looked([state(ours), state(theirs)], workers, recent)
    assert "secret" not in repr(status)
    assert "rival" not in repr(status)
    assert [turn.conversation_id for turn in status.turns] == ["c1"]
    assert [actor.conversation_id for actor in status.actors] == ["c1"]
    assert [worker.worker_id for worker in status.workers] == ["w-acme"]
    assert [failed.conversation_id for failed in status.failures] == ["c1"]
    assert (status.active_actors, status.running, status.workers_in_all, status.idle_workers) == (2, 2, 2, 2)


def test_clocks_are_those_that_run() -> None:
    [turn] = looked([state(ref("c1"))]).turns
    left = {clock.code: clock.left_seconds for clock in turn.clocks}
    whole = Deadlines()
    assert left == {
        "TURN_TIMEOUT": whole.turn_seconds - 10,
        "WORKER_UNRESPONSIVE": whole.heartbeat_seconds - 1,
        "NO_PROGRESS": whole.progress_seconds - 2,
    }
    assert (turn.age_seconds, turn.text_length, turn.doing) == (10.0, 7, None)
    [tool] = looked([state(ref("c1"), tool="search", tool_since=NOW - 3)]).turns
    assert tool.doing == "search"
    assert {clock.code for clock in tool.clocks} == {"TURN_TIMEOUT", "WORKER_UNRESPONSIVE", "TOOL_TIMEOUT"}
    [asking] = looked([state(ref("c1"), questions=(Question("q", "1"),), waiting_since=NOW - 5)]).turns
    assert asking.doing == "waits for an answer"
    assert [(clock.code, clock.left_seconds) for clock in asking.clocks] == [
        ("QUESTION_TIMEOUT", whole.question_seconds - 5)
    ]


def test_what_is_told_is_bounded_and_the_most_is_told_first() -> None:
    many = [state(ref(f"c{number}"), NOW - number) for number in range(3 * SHOWN)]
    workers = [WorkerInfo(f"w{n}", "echo", os.getpid(), ref(f"c{n}"), float(n), "ready") for n in range(3 * SHOWN)]
    status = looked(many, workers)
    assert len(status.turns) == len(status.actors) == len(status.workers) == SHOWN
    assert status.turns[0].conversation_id == f"c{3 * SHOWN - 1}"
    assert status.actors[0].waiting == 3 * SHOWN - 1
    assert status.workers[0].memory_bytes > 1 << 20
