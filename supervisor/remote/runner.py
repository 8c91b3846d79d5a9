"""`lobu worker connect`: a host without a database, whose places are given to conversations of hosts elsewhere.

    worker
    ├── spawner, containment, workers    as a supervisor has them
    └── places                           a connection each: idle, or with one worker

Of a conversation there is one worker here: a new one ends an earlier one whose link is cut.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version

import trio
from msgspec.structs import replace

from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.runtime.child_spec import ChildContext, ChildSpec, Restart
from lobu_actors.runtime.supervisor import Supervisor
from supervisor.config.settings import Settings
from supervisor.remote.connection import Address, Refused
from supervisor.remote.place import LAST_WORDS_SECONDS, Place
from supervisor.remote.tenant import Tenant
from supervisor.spawner.link import SpawnerLink
from supervisor.workers import containment
from supervisor.workers.containment import Containment
from supervisor.workers.environment import worker_environment
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workers.users import UidRange
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspaces

ABANDON_SECONDS = 1.0  # for the workers of a runner that was killed


class Runner:
    """`run` until `stopping` is set and the turns under way had their grace. Raises Refused."""

    def __init__(
        self, settings: Settings, kind: WorkerType, address: Address, slots: int, let_in: Callable[[], None]
    ) -> None:
        limits = settings.limits
        self._settings = settings
        self._kind = kind
        self._address = address
        self._slots = slots
        self._let_in = let_in
        self._spawner = SpawnerLink(settings.state_dir / "spawner", abandon_seconds=ABANDON_SECONDS)
        self._quota = Quota(limits.workspace_max_bytes, limits.workspace_max_files)
        self._workspaces = HostWorkspaces(
            settings.state_dir / "workspaces", max_bytes=limits.session_file_max_bytes, quota=self._quota
        )
        types = {kind.name: kind}
        uids = UidRange(limits.worker_uid_first, limits.worker_uid_count)
        place = containment.Place(settings.state_dir)
        self._containment = Containment(self._spawner, types, self._workspaces, place, uids)
        self._workers = WorkerProcesses(
            self._spawner,
            types,
            self._workspaces,
            self._environment_of,
            WorkerLimits(max_workers=limits.max_workers, place_seconds=limits.worker_place_seconds),
            self._containment,
        )
        self._tenants: dict[ConversationRef, Tenant] = {}
        self._refused: list[Refused] = []
        self._was_refused = trio.Event()

    async def run(self, stopping: trio.Event) -> None:
        last = self._settings.limits.drain_grace_seconds + 2 * LAST_WORDS_SECONDS
        tree = Supervisor(
            "worker",
            [
                ChildSpec("spawner", self._spawner.run, shutdown_seconds=8, start_timeout_seconds=15),
                ChildSpec("containment", self._containment.run, start_timeout_seconds=120),
                ChildSpec("workers", self._workers.run, shutdown_seconds=8),
                ChildSpec("places", self._run_places, restart=Restart.TRANSIENT, shutdown_seconds=last),
            ],
        )

        async def stop() -> None:
            await stopping.wait()
            tree.stop()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)
                nursery.start_soon(self._stop_when_refused, stopping)
                await tree.serve()
                nursery.cancel_scope.cancel()
        finally:
            self._workspaces.close()
        if self._refused:
            raise self._refused[0]

    async def _stop_when_refused(self, stopping: trio.Event) -> None:
        await self._was_refused.wait()
        stopping.set()

    async def _run_places(self, context: ChildContext) -> None:
        places = [Place(self._address, self._join_of, self._tenant_of, self._let_in) for _ in range(self._slots)]
        context.started()
        async with trio.open_nursery() as leaving:
            async with trio.open_nursery() as nursery:
                for place in places:
                    nursery.start_soon(self._run_place, place)
                await context.stopping.wait()
                grace = self._settings.limits.drain_grace_seconds
                nursery.cancel_scope.deadline = trio.current_time() + grace + LAST_WORDS_SECONDS
                for place in places:
                    leaving.start_soon(place.leave)
            leaving.cancel_scope.cancel()

    async def _run_place(self, place: Place) -> None:
        try:
            await place.run()
        except Refused as refused:
            self._refused.append(refused)
            self._was_refused.set()

    def _join_of(self, tenant: Tenant | None) -> link.Join:
        join = link.Join(self._kind.name, link.LINK_VERSION, frames.PROTOCOL_VERSION, platform.node())
        if tenant is None:
            return join
        return replace(join, resume=tenant.worker_id, host=tenant.host, received=tenant.sending.received)

    def _tenant_of(self, joined: link.Joined) -> Tenant:
        return Tenant(
            joined,
            self._kind.name,
            version("lobu-actors"),
            self._workers,
            self._workspaces,
            self._quota,
            self._make_way,
        )

    async def _make_way(self, ref: ConversationRef, tenant: Tenant) -> None:
        former = self._tenants.get(ref)
        self._tenants = {known: one for known, one in self._tenants.items() if not one.gone.is_set()} | {ref: tenant}
        if former is not None:
            await former.drop()

    def _environment_of(self, workspace: str, token: str) -> dict[str, str]:
        return worker_environment(
            workspace=workspace,
            dispatcher_url=self._address.url,
            token=token,
            worker_env=self._settings.worker_env,
        )
