"""One host's supervisor tree: what it consists of, in which order it starts and stops.

    store -> timers -> spawner -> workers -> membership -> conversations -> sweeper -> (edge)

Stopping goes the other way round: no more sweeps, actors hand over, workers end, the spawner ends. Membership,
conversations and sweeper live and die together: a process that was declared dead joins again as a new host, with new
actors; with them the singletons, of which each runs on one host of all. Beside them the janitor deletes what is old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from urllib.parse import urlsplit

import attrs
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.environment import Busy, Environment, FileLimits
from lobu_actors.conversation.messages import Message
from lobu_actors.conversation.promises import Promises
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.spans import SpanSink
from lobu_actors.conversation.state import Limits as ConversationLimits
from lobu_actors.gateway.feed import Feeds
from lobu_actors.gateway.link.auth import HostTokens
from lobu_actors.gateway.link.worker_pipe import LinkDoor
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.runtime.child_spec import ChildSpec
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.supervisor import Strategy, Supervisor
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.link_protocol import Peer
from lobu_actors.store.protocol import Store
from supervisor.config.errors import ConfigError
from supervisor.config.settings import Settings
from supervisor.conversations import Conversations
from supervisor.freezer import Freezer
from supervisor.links.hub import LinkHub
from supervisor.looking import Look
from supervisor.membership import Membership
from supervisor.occupancy import ThisHost
from supervisor.placement import Placing
from supervisor.remote.choice import AllWorkers
from supervisor.remote.door import HostDoor
from supervisor.remote.pool import RemoteWorkers
from supervisor.rollout import Preconditions
from supervisor.sandbox.destinations import Destination
from supervisor.singletons.build import singletons_of
from supervisor.singletons.inbox import Judge
from supervisor.spawner.connection import SpawnerLost
from supervisor.spawner.link import SpawnerLink
from supervisor.tree_log import TreeLog
from supervisor.upkeep.deadlines import Deadlines
from supervisor.upkeep.expired_files import ExpiredFiles
from supervisor.upkeep.gauges import Gauges
from supervisor.upkeep.janitor import Janitor
from supervisor.upkeep.sweeper import Sweeper
from supervisor.upkeep.workspace_watch import WorkspaceWatch
from supervisor.workers.containment import Containment, Place
from supervisor.workers.environment import worker_environment
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workers.users import UidRange
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspaces

MAX_ACTORS = 100_000
SWEEP_BATCH = 500
SWEEP_OLDER_THAN_SECONDS = 2.0  # younger debts have a hint under way
HANDOVER_SECONDS = 5.0
DAY_SECONDS = 86_400.0
PATIENCE_SECONDS = 3600.0  # how long a turn waits for a store that is away
RunToken = Callable[[ConversationRef, str, float], str]  # conversation, run id, lifetime in seconds
TREE_INTENSITY = Intensity(max_restarts=10, within_seconds=60.0)


class Host:
    """The parts of one supervisor process, over a store that is usable. `children` go into its tree in this order."""

    def __init__(self, settings: Settings, store: Store, run_token: RunToken, tokens: HostTokens, judge: Judge) -> None:
        limits = settings.limits
        alone = Preconditions.of(settings).alone
        self._settings = settings
        self._types = dict(settings.workers)  # of all parts; a reload changes it in place
        self._busy = Busy()
        self._timers = Timers()
        self._link = _spawner_link(settings)
        workspaces = _workspaces(settings)
        self._containment = _containment(settings, self._types, self._link, workspaces)
        of_workers = WorkerLimits(max_workers=limits.max_workers, place_seconds=limits.worker_place_seconds)
        self.workers = WorkerProcesses(
            self._link,
            self._types,
            workspaces,
            self._worker_environment,
            of_workers,
            self._containment,
        )
        self.remote = RemoteWorkers(self._host_id, self._types, workspaces, of_workers, _quota(settings))
        self.worker_door = self._door(settings, store, tokens)
        self._watch = WorkspaceWatch(self.workers.snapshot, workspaces.excess, self.workers.end_for_its_workspace)
        self.membership = _membership(settings, store, alone)
        here = ThisHost(self._busy, self.workers, lambda ref: self.conversations.place_again(ref))
        self.membership.runs, self.membership.room = here.runs, here.room
        self._placing = Placing(store, self.membership, here)
        environment = self._environment = self._shared(settings, store, workspaces, run_token)
        self.conversations = Conversations(environment, idle_seconds=limits.worker_idle_seconds, max_actors=MAX_ACTORS)
        self.workers.end_one_at_rest = self.remote.end_one_at_rest = self.conversations.end_one_at_rest
        look = self.looking = Look(environment, self.workers, self.remote, self.conversations)
        self.conversations.looking = look
        self._links = LinkHub(settings.links, environment, self.conversations, tokens, self.remote)
        self.gateway: Gateway = self._links.gateway if settings.allow_multi_host else self.conversations
        self.membership.link_url, self.membership.links = self._links.url, self._links.peers.links
        self._placing.forward = self._links
        self.remote.give_up_elsewhere = self._links.peers.give_up_place
        give_up = self.conversations.give_up
        self._deadlines = Deadlines(store, self._host_id, environment.promises, environment.running, give_up)
        self._sweeper = self._sweeping(settings, store, environment.promises)
        self._janitor, self._expired_files = _janitor(settings, store), ExpiredFiles(store)
        self._gauges = Gauges(store)
        self._show_in_metrics()
        self._freezer = Freezer(
            self.membership,
            store,
            self._link,
            environment.running,
            self.conversations.active_refs,
            give_up,
            self.workers,
            alone=alone is not None,
        )
        self.tree_log = TreeLog()
        self._singletons = Supervisor(
            "singletons",
            singletons_of(settings, store, self.membership, self.gateway, judge),
            intensity=TREE_INTENSITY,
            on_event=self.tree_log,
        )
        self._actors = self._supervise_actors()

    def tell_spans(self, spans: SpanSink | None) -> None:
        """To whom the spans of runs are told; call it before this host runs."""
        self._environment.spans = spans

    def _door(self, settings: Settings, store: Store, tokens: HostTokens) -> HostDoor:
        """Where an edge of this process can bring a remote worker to."""

        async def find() -> list[Peer]:
            return await store.find_peers(self._host_id()) if settings.allow_multi_host else []

        return HostDoor(self._host_id, self.remote, LinkDoor(self._host_id, tokens, find))

    def _host_id(self) -> str:
        """Changes when this process joins again as a new host."""
        return self.membership.host_id

    async def take_up_workers(self, settings: Settings) -> None:
        """Start workers as `settings` say from now on; what is needed to bound a changed type is tested first.

        A type that is gone stays: agents of other organizations may name it. Raises ConfigError.
        """
        untested = self._containment.untested
        changed = [
            kind for kind in settings.workers.values() if self._types.get(kind.name) != kind or kind.name in untested
        ]
        try:
            await self._containment.change([kind for kind in changed if not kind.remote])
            self._types.update((kind.name, kind) for kind in changed if kind.remote)
        except SpawnerLost as error:
            raise ConfigError(f"worker types could not be tested, {error}; have it read again.") from error
        new_environment = settings.worker_env != self._settings.worker_env
        self._settings = attrs.evolve(self._settings, worker_env=settings.worker_env)
        self.workers.changed(list(self._types) if new_environment else [kind.name for kind in changed])

    def take_up(self, settings: Settings, agents: Collection[str]) -> None:
        """Conversations of these `agents` begin their next turn anew, all others when they next become active."""
        self._environment.limits = _conversation_limits(settings)
        self._environment.max_owed_turns = settings.limits.queue_max_turns
        self._environment.file_limits = _file_limits(settings)
        self.conversations.begin_anew(agents)

    def _worker_environment(self, workspace: str, token: str) -> dict[str, str]:
        settings = self._settings
        return worker_environment(
            workspace=workspace,
            dispatcher_url=settings.server.public_url,
            token=token,
            worker_env=settings.worker_env,
            session_store=settings.session_store,
        )

    def _shared(self, settings: Settings, store: Store, workspaces: HostWorkspaces, run_token: RunToken) -> Environment:
        limits = settings.limits
        return Environment(
            host_id=self._host_id,
            store=store,
            workers=AllWorkers(self._types, self.workers, self.remote),
            workspaces=workspaces,
            feeds=Feeds(wall_clock_ms, self._timers),
            timers=self._timers,
            busy=self._busy,
            promises=Promises(),
            running=RunningClock(),
            clock_ms=wall_clock_ms,
            limits=_conversation_limits(settings),
            max_owed_turns=limits.queue_max_turns,
            patience=Patience(PATIENCE_SECONDS),
            handover_seconds=HANDOVER_SECONDS,
            session_store=settings.session_store,
            run_token=run_token,
            file_limits=_file_limits(settings),
            not_ours=self._not_ours,
            placement=self._placing,
        )

    def _show_in_metrics(self) -> None:
        """Asked when somebody looks, so that it costs nothing otherwise."""
        telemetry.LIVE_RUNS.set_function(lambda: len(self._busy))
        telemetry.IDLE_WORKERS.set_function(lambda: self.workers.idle)
        telemetry.HOST_TRUST_SECONDS.set_function(lambda: self.membership.trusted_until - trio.current_time())
        for state in ("waiting", "starting", "ready"):
            telemetry.WORKERS.labels(state).set_function(partial(self._count_workers, state))

    def _count_workers(self, state: str) -> int:
        return sum(worker.state == state for worker in self.workers.snapshot())

    def _not_ours(self, ref: ConversationRef, host_id: str, message: Message) -> None:
        self._links.not_ours(ref, host_id, message)

    def _sweeping(self, settings: Settings, store: Store, promises: Promises) -> Sweeper:
        return Sweeper(
            store,
            self._host_id,
            self.conversations.sweep,
            self.conversations.overdue,
            promises.seems_stuck,
            interval_seconds=settings.limits.sweep_interval_seconds,
            batch=SWEEP_BATCH,
            older_than_seconds=SWEEP_OLDER_THAN_SECONDS,
            in_a_hurry=self._placing.in_a_hurry,
        )

    def _supervise_actors(self) -> Supervisor:
        conversations = ChildSpec(
            "conversations", self.conversations.run, shutdown_seconds=15, subtree=self.conversations.snapshot
        )
        return Supervisor(
            "host",
            [
                ChildSpec("membership", self.membership.run),
                ChildSpec("placement", self._placing.run),
                conversations,
                ChildSpec("freezer", self._freezer.run),
                ChildSpec("deadlines", self._deadlines.run),
                ChildSpec("sweeper", self._sweeper.run),
                self._singletons.as_child(),
            ],
            strategy=Strategy.REST_FOR_ONE,
            intensity=TREE_INTENSITY,
            on_event=self.tree_log,
        )

    @property
    def children(self) -> list[ChildSpec]:
        return [
            *self._links.listening,
            ChildSpec("timers", self._timers.run),
            ChildSpec("janitor", self._janitor.run),
            ChildSpec("expired files", self._expired_files.run),
            ChildSpec("spawner", self._link.run, shutdown_seconds=8, start_timeout_seconds=15),
            ChildSpec("containment", self._containment.run, start_timeout_seconds=120),
            ChildSpec("workers", self.workers.run, shutdown_seconds=8),
            ChildSpec("remote workers", self.remote.run, shutdown_seconds=8),
            ChildSpec("worker door", self.worker_door.run),
            ChildSpec("workspace watch", self._watch.run),
            ChildSpec("gauges", self._gauges.run),
            self._actors.as_child(),
            *self._links.reaching_out,
        ]


def _spawner_link(settings: Settings) -> SpawnerLink:
    limits = settings.limits
    return SpawnerLink(
        settings.state_dir / "spawner",
        managed=settings.managed,
        abandon_seconds=limits.adoption_seconds,
        silent_seconds=limits.spawner_silent_seconds,
    )


def _workspaces(settings: Settings) -> HostWorkspaces:
    limit = settings.limits.session_file_max_bytes
    return HostWorkspaces(settings.state_dir / "workspaces", max_bytes=limit, quota=_quota(settings))


def _janitor(settings: Settings, store: Store) -> Janitor:
    limits = settings.limits
    return Janitor(
        store,
        retention_seconds=limits.retention_days * DAY_SECONDS,
        max_segments=limits.snapshot_max_segments,
        interval_seconds=limits.retention_interval_seconds,
        host_retention_seconds=limits.host_retention_days * DAY_SECONDS,
    )


def _quota(settings: Settings) -> Quota:
    return Quota(settings.limits.workspace_max_bytes, settings.limits.workspace_max_files)


def _membership(settings: Settings, store: Store, alone: Alone | None) -> Membership:
    limits = settings.limits
    return Membership(
        store,
        settings.state_dir,
        ttl_seconds=limits.host_ttl_seconds,
        renew_seconds=limits.host_renew_seconds,
        margin_seconds=limits.host_margin_seconds,
        alone=alone,
    )


def _containment(
    settings: Settings, types: dict[str, WorkerType], link: SpawnerLink, workspaces: HostWorkspaces
) -> Containment:
    place = Place(settings.state_dir, _dispatcher(settings.server.public_url))
    uids = UidRange(settings.limits.worker_uid_first, settings.limits.worker_uid_count)
    return Containment(link, types, workspaces, place, uids)


def _dispatcher(public_url: str) -> Destination:
    """Where a worker finds this host's gateway. Its name may well lead to an address that is not public."""
    parts = urlsplit(public_url)
    return Destination(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), private=True)


def _file_limits(settings: Settings) -> FileLimits:
    limits = settings.limits
    return FileLimits(limits.upload_max_files, limits.upload_file_max_bytes, limits.upload_total_max_bytes)


def _conversation_limits(settings: Settings) -> ConversationLimits:
    limits = settings.limits
    return ConversationLimits(
        reply_max_chars=limits.reply_max_bytes,
        max_open_questions=limits.run_max_open_questions,
        cancel_grace_seconds=limits.cancel_grace_seconds,
        crash_loop_max=limits.crash_loop_crashes,
        crash_loop_seconds=limits.crash_loop_period_seconds,
    )


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
