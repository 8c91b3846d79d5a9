"""What a host tells of itself: of conversations the asking organization's alone, bounded, and clocks as they stand."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.recent import Recent
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.state import Limits, Question, Run, RunPhase, State
from lobu_actors.runtime.tree import NodeState, TreeNode
from lobu_actors.store.records import Turn
from supervisor import looking
from supervisor.looking import LOOKED_THROUGH, SHOWN, Look
from supervisor.workers.info import WorkerInfo

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


class Some(list[WorkerInfo]):
    """In place of worker processes, or of remote workers."""

    idle: Any = 2

    def oldest(self, organization_id: str, most: int) -> list[WorkerInfo]:
        return [one for one in self if one.ref.organization_id == organization_id][:most]


class Places(Some):
    def idle(self, organization_id: str) -> int:
        return {"acme": 3}.get(organization_id, 0)


class Actors(dict[ConversationRef, int]):
    """With how many messages wait for each; counts how often it is asked that."""

    asked = 0

    def active_refs(self) -> Any:
        return self.keys()

    def depth(self, ref: ConversationRef) -> int:
        self.asked += 1
        return self[ref]


def parts(
    states: list[State],
    workers: list[WorkerInfo] = [],  # noqa: B006
    recent: Recent | None = None,
    *,
    remote: list[WorkerInfo] = [],  # noqa: B006
    actors: Actors | None = None,
    at_work: list[ConversationRef] = [],  # noqa: B006
) -> tuple[Any, ...]:
    environment = SimpleNamespace(
        host_id=lambda: "h1",
        clock_ms=lambda: NOW_MS,
        running=RunningClock(lambda: NOW),
        promises=SimpleNamespace(running={one.ref: one for one in states}, at_message=dict.fromkeys(at_work, NOW)),
        recent=recent or Recent(),
    )
    if actors is None:
        actors = Actors((one.ref, 0) for one in states)
    return environment, Some(workers), Places(remote), actors


def looked(*of: Any, **named: Any) -> Any:
    look = Look(*parts(*of, **named))
    children = (TreeNode("secret", "actor", NodeState.RUNNING),)
    registry = TreeNode("conversations", "registry", NodeState.RUNNING, 0, children)
    look.tree = lambda: TreeNode("lobu", "supervisor", NodeState.RUNNING, 0, (registry,))
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
    many = [state(ref(f"c{number}"), NOW - 1000 + number) for number in range(3 * SHOWN)]
    workers = [WorkerInfo(f"w{n}", "echo", os.getpid(), ref(f"c{n}"), 1e3 - n, "ready") for n in range(3 * SHOWN)]
    actors = Actors((one.ref, number) for number, one in enumerate(many))
    status = looked(many, workers, actors=actors, at_work=list(actors))
    assert len(status.turns) == len(status.actors) == len(status.workers) == SHOWN
    assert (status.active_actors, status.running, status.workers_in_all) == (3 * SHOWN, 3 * SHOWN, 3 * SHOWN)
    assert status.turns[0].conversation_id == "c0"
    assert status.actors[0].waiting == 3 * SHOWN - 1
    assert status.workers[0].worker_id == "w0"
    assert status.workers[0].memory_bytes > 1 << 20


def test_those_that_do_something_are_told_of_however_many_do_nothing() -> None:
    actors = Actors((ref(f"idle{number}", "rival" if number % 2 else "acme"), 0) for number in range(20_000))
    busy, waiting = ref("busy"), ref("waiting")
    actors |= {busy: 0, waiting: 7}
    status = looked([state(busy)], actors=actors, at_work=[waiting])
    assert [(one.conversation_id, one.waiting, one.running) for one in status.actors[:3]] == [
        ("waiting", 7, False),
        ("busy", 0, True),
        ("idle0", 0, False),
    ]
    assert len(status.actors) == SHOWN
    assert actors.asked <= 2 * SHOWN
    hidden = Actors((ref(f"theirs{number}", "rival"), 0) for number in range(LOOKED_THROUGH))
    hidden[ref("behind them")] = 0
    assert looked([], actors=hidden).actors == (), "it looks through so many, not through all"


def test_workers_on_other_machines_are_told_with_theirs() -> None:
    here = WorkerInfo("w1", "echo", os.getpid(), ref("c1"), 5.0, "ready")
    there = WorkerInfo("w2", "gpu", None, ref("c2"), 9.0, "ready", "box")
    nowhere = WorkerInfo("w3", "gpu", None, ref("c3"), 1.0, "waiting", "")
    status = looked([], [here], remote=[there, nowhere])
    told = [(one.worker_id, one.machine, one.state, one.memory_bytes is None) for one in status.workers]
    assert told == [("w2", "box", "ready", True), ("w1", None, "ready", False), ("w3", "", "waiting", True)]
    assert (status.workers_in_all, status.idle_workers, status.idle_places) == (3, 2, 3)


def test_a_workers_memory_is_read_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(looking, "_memory", lambda pid: read.append(pid) or len(read))
    workers = [
        WorkerInfo("w1", "echo", 77, ref("c1"), 5.0, "ready"),
        WorkerInfo("w2", "gpu", None, ref("c2"), 5.0, "x"),
    ]
    look = Look(*parts([], workers))
    told = [look.status("acme", draining=False).workers for _ in range(3)]
    assert [[one.memory_bytes for one in seen] for seen in told] == [[1, None]] * 3
    monkeypatch.setattr(looking, "MEMORY_SECONDS", 0.0)
    assert look.status("acme", draining=False).workers[0].memory_bytes == 2
    assert read == [77, 77]
