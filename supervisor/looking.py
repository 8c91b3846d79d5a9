"""What this host tells of itself to whoever looks, put together at that moment from parts that it only reads.

Bounded, whatever the host has: the busiest actors, the oldest runs and workers, so many of each as a page can show. Of
actors, of which there may be a hundred thousand, it looks only at those that do something, and at some of the rest.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, KeysView
from heapq import nlargest
from itertools import chain, islice
from typing import Protocol

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.clocks import run_deadlines
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.state import Run, State
from lobu_actors.gateway.status import ActorStatus, Clock, HostStatus, Node, RunningTurn, WorkerStatus
from lobu_actors.runtime.tree import NodeState, TreeNode
from supervisor.remote.pool import RemoteWorkers
from supervisor.workers.info import WorkerInfo
from supervisor.workers.service import WorkerProcesses

SHOWN = 50  # of each kind
MEMORY_SECONDS = 5.0  # a worker's memory is read anew after so long
LOOKED_THROUGH = 2_000  # actors that do nothing, for those of the organization that asks
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NO_TREE = TreeNode("lobu", "supervisor", NodeState.STARTING)


class Actors(Protocol):
    def active_refs(self) -> KeysView[ConversationRef]: ...

    def depth(self, ref: ConversationRef) -> int:
        """The messages that wait for its actor."""
        ...


class Look:
    """`tree` gives the whole tree of this process; set by whoever has it."""

    def __init__(
        self, environment: Environment, workers: WorkerProcesses, remote: RemoteWorkers, actors: Actors
    ) -> None:
        self._env = environment
        self._workers = workers
        self._remote = remote
        self._actors = actors
        self._name = socket.gethostname()
        self._memory: dict[str, tuple[float, int | None]] = {}  # of the workers shown last, and when it was read
        self.tree: Callable[[], TreeNode] = lambda: _NO_TREE

    def status(self, organization_id: str, *, draining: bool) -> HostStatus:
        env, now_ms = self._env, self._env.clock_ms()
        workers = self._workers.oldest(organization_id, SHOWN) + self._remote.oldest(organization_id, SHOWN)
        shown = nlargest(SHOWN, workers, key=lambda worker: worker.age_seconds)
        return HostStatus(
            host_id=env.host_id(),
            name=self._name,
            draining=draining,
            frozen=env.running.stands,
            active_actors=len(self._actors.active_refs()),
            running=len(env.promises.running),
            workers_in_all=len(self._workers) + len(self._remote),
            idle_workers=self._workers.idle,
            tree=_node(self.tree()),
            terminal=env.recent.terminal.latencies(now_ms),
            crash=env.recent.crash.latencies(now_ms),
            actors=self._busiest(organization_id),
            workers=self._with_memory(shown),
            turns=self._turns(organization_id),
            failures=env.recent.failures(organization_id, SHOWN),
            idle_places=self._remote.idle(organization_id),
        )

    def _busiest(self, organization_id: str) -> tuple[ActorStatus, ...]:
        """Those with most to do first. For whom a message waits is at another one, or about to take it."""
        running, depth = self._env.promises.running, self._actors.depth
        at_work = (ref for ref in self._env.promises.at_message if ref.organization_id == organization_id)
        found = dict(nlargest(SHOWN, ((ref, depth(ref)) for ref in at_work), key=lambda one: one[1]))
        for ref in chain(running, islice(self._actors.active_refs(), LOOKED_THROUGH)):
            if len(found) == SHOWN:
                break
            if ref.organization_id == organization_id and ref not in found:
                found[ref] = depth(ref)
        by_work = sorted(found.items(), key=lambda one: (one[1], one[0] in running), reverse=True)
        return tuple(ActorStatus(ref.conversation_id, waiting, ref in running) for ref, waiting in by_work)

    def _with_memory(self, workers: list[WorkerInfo]) -> tuple[WorkerStatus, ...]:
        now, before = time.monotonic(), self._memory
        self._memory = {}
        for one in workers:
            read_at, size = before.get(one.worker_id, (-math.inf, None))
            if now - read_at >= MEMORY_SECONDS and one.pid is not None:
                read_at, size = now, _memory(one.pid)
            self._memory[one.worker_id] = read_at, size
        return tuple(_worker(one, self._memory[one.worker_id][1]) for one in workers)

    def _turns(self, organization_id: str) -> tuple[RunningTurn, ...]:
        """The oldest: they stand in the order in which their runs began."""
        now = self._env.running.now()
        own = (
            (state, state.run)
            for ref, state in self._env.promises.running.items()
            if ref.organization_id == organization_id and state.run is not None
        )
        return tuple(_turn(state, run, now) for state, run in islice(own, SHOWN))


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


def _worker(worker: WorkerInfo, memory_bytes: int | None) -> WorkerStatus:
    return WorkerStatus(
        worker.worker_id,
        worker.worker,
        worker.pid,
        worker.ref.conversation_id,
        worker.state,
        round(worker.age_seconds, 1),
        memory_bytes,
        worker.machine,
    )


def _memory(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None
