"""What this host tells of itself to whoever looks, put together at that moment from parts that it only reads.

Bounded, whatever the host has: the busiest actors, the longest running turns, the largest workers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from heapq import nlargest

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.clocks import run_deadlines
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.state import Run, State
from lobu_actors.gateway.status import ActorStatus, Clock, HostStatus, Node, RunningTurn, WorkerStatus
from lobu_actors.runtime.tree import NodeState, TreeNode
from supervisor.workers.service import WorkerInfo, WorkerProcesses

SHOWN = 100  # of each kind
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NO_TREE = TreeNode("lobu", "supervisor", NodeState.STARTING)


class Look:
    """`tree` gives the whole tree of this process; set by whoever has it."""

    def __init__(
        self,
        environment: Environment,
        workers: WorkerProcesses,
        depths: Callable[[], Mapping[ConversationRef, int]],
    ) -> None:
        self._env = environment
        self._workers = workers
        self._depths = depths
        self.tree: Callable[[], TreeNode] = lambda: _NO_TREE

    def status(self, organization_id: str, *, draining: bool) -> HostStatus:
        env, now_ms = self._env, self._env.clock_ms()
        depths, workers = self._depths(), self._workers.snapshot()
        running = [state for ref, state in env.promises.running.items() if ref.organization_id == organization_id]
        own = [worker for worker in workers if worker.ref.organization_id == organization_id]
        return HostStatus(
            host_id=env.host_id(),
            name=socket.gethostname(),
            draining=draining,
            frozen=env.running.stands,
            active_actors=len(depths),
            running=len(env.promises.running),
            workers_in_all=len(workers),
            idle_workers=self._workers.idle,
            tree=_node(self.tree()),
            terminal=env.recent.terminal.latencies(now_ms),
            crash=env.recent.crash.latencies(now_ms),
            actors=self._actors(organization_id, depths),
            workers=tuple(map(_worker, nlargest(SHOWN, own, key=lambda worker: worker.age_seconds))),
            turns=self._turns(running),
            failures=env.recent.failures(organization_id, SHOWN),
        )

    def _actors(self, organization_id: str, depths: Mapping[ConversationRef, int]) -> tuple[ActorStatus, ...]:
        """Those with most to do first."""
        running = self._env.promises.running
        own = ((depth, ref in running, ref) for ref, depth in depths.items() if ref.organization_id == organization_id)
        busiest = nlargest(SHOWN, own, key=lambda one: one[:2])
        return tuple(ActorStatus(ref.conversation_id, depth, runs) for depth, runs, ref in busiest)

    def _turns(self, running: list[State]) -> tuple[RunningTurn, ...]:
        now = self._env.running.now()
        found = [(now - state.run.started_at, state, state.run) for state in running if state.run is not None]
        oldest = nlargest(SHOWN, found, key=lambda one: one[0])
        return tuple(_turn(state, run, now) for _age, state, run in oldest)


def _turn(state: State, run: Run, now: float) -> RunningTurn:
    clocks = tuple(Clock(code.value, round(at - now, 1)) for at, code in run_deadlines(run, state.deadlines))
    first = run.turns[0]
    return RunningTurn(
        conversation_id=state.ref.conversation_id,
        turn_id=first.turn_id,
        message_id=first.message_id,
        joined=len(run.turns) - 1,
        attempt=run.attempt,
        phase=run.phase.value,
        age_seconds=round(now - run.started_at, 1),
        text_length=run.text_length,
        doing="waits for an answer" if run.questions else run.tool,
        clocks=clocks,
    )


def _node(node: TreeNode) -> Node:
    """Without the actors: each of them is a conversation's, and they are told apart."""
    children = tuple(_node(child) for child in node.children if child.kind not in ("actor", "actors"))
    return Node(node.name, node.kind, node.state.value, node.restarts, children)


def _worker(worker: WorkerInfo) -> WorkerStatus:
    return WorkerStatus(
        worker.worker_id,
        worker.worker,
        worker.pid,
        worker.ref.conversation_id,
        worker.state,
        round(worker.age_seconds, 1),
        None if worker.pid is None else _memory(worker.pid),
    )


def _memory(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None
