"""What keeps a worker within bounds: resource limits, a user of its own, a sandbox. Decided here for every start.

A supervised child: before it has started it finds out, through the spawner and with real processes, which worker types
can have users of their own on this host and whether their sandbox holds. A type that asked for what it cannot have does
not start (fail closed); that of others is not affected. Owns the uids of living workers and their ways out.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import msgspec
import structlog
import trio

from lobu_actors.contract.ids import new_id
from supervisor.sandbox.command import RELAY, NoSandbox, Sandbox, System, command_line, find_system, proxy_environment
from supervisor.sandbox.destinations import Allowlist, Destination
from supervisor.sandbox.egress import Egress
from supervisor.sandbox.proxy import Clocks
from supervisor.sandbox.self_test import PROBE, baits, verdict
from supervisor.spawner.connection import SpawnFailed
from supervisor.spawner.link import Context, SpawnerLink
from supervisor.spawner.protocol import Spawn
from supervisor.workers.probes import ENVIRONMENT, ProbeFailed, first_unreachable, run_probe
from supervisor.workers.types import WorkerType
from supervisor.workers.users import UidRange, WorkerUsers, existing_accounts
from supervisor.workspaces.workspace import HostWorkspaces

MIB = 1024 * 1024

_log = structlog.get_logger()


class Place(msgspec.Struct, frozen=True):
    """Where this host keeps its things, and what its gateway is called for a worker."""

    state_dir: Path
    dispatcher: Destination | None = None


class Containment:
    """`contain` may be called once `run` has said that it started; `release` belongs to each worker contained."""

    def __init__(
        self,
        link: SpawnerLink,
        types: dict[str, WorkerType],
        workspaces: HostWorkspaces,
        place: Place,
        uids: UidRange,
        clocks: Clocks | None = None,
    ) -> None:
        self._link = link
        self._types = types
        self._workspaces = workspaces
        self._place = place
        self._egress = Egress(place.state_dir / "egress", clocks=clocks)
        self._users = WorkerUsers(uids.numbers(existing_accounts()), lambda: workspaces.descriptor)
        self._own_user: set[str] = set()
        self._refused: dict[str, str] = {}
        self._system: System | None = None
        self._tested = trio.Event()
        self.untested: set[str] = set()

    async def run(self, context: Context) -> None:
        """Serve the ways out until an ordered stop. Tests the types first, which takes some 0.1 s for each."""
        async with trio.open_nursery() as nursery:
            serving = _Serving(context.stopping)
            nursery.start_soon(self._egress.run, serving)
            await serving.up.wait()
            await self.change([kind for kind in self._types.values() if not kind.remote])
            context.started()

    async def change(self, kinds: Collection[WorkerType]) -> None:
        """Have these types be as given, tested; starts wait meanwhile. One call at a time. Raises SpawnerLost: then
        they do not start, and `untested` has them."""
        self._tested = trio.Event()
        names = {kind.name for kind in kinds}
        self.untested |= names
        self._own_user -= names
        for kind in kinds:
            self._types[kind.name] = kind
            self._refused.pop(kind.name, None)
        try:
            await self._prove(kinds)
            self.untested -= names
        finally:
            for name in names & self.untested:
                self._refused[name] = f"Workers of type {name!r} do not start on this host: their test was cut short."
            self._tested.set()

    # --- workers

    async def contain(self, kind: WorkerType, spawn: Spawn) -> Spawn:
        """The start with all that bounds it. Raises SpawnFailed, OSError; nothing is kept of the worker then."""
        await self._tested.wait()
        return await self._bounded(kind, spawn)

    async def _bounded(self, kind: WorkerType, spawn: Spawn) -> Spawn:
        if (reason := self._refused.get(kind.name)) is not None:
            raise SpawnFailed(reason)
        try:
            return await self._contain(kind, spawn)
        except BaseException:
            self.release(spawn.worker_id)
            raise

    async def contain_idle(self, kind: WorkerType, spawn: Spawn) -> Spawn:
        """As `contain`, for a worker that has no conversation yet; only for types without a sandbox."""
        await self._tested.wait()
        if (reason := self._refused.get(kind.name)) is not None:
            raise SpawnFailed(reason)
        limits = dict(kind.limits)
        if kind.name not in self._own_user:
            return spawn._replace(limits=limits)
        uid = self._users.reserve(spawn.worker_id)
        return spawn._replace(limits={**limits, "RLIMIT_NPROC": kind.processes}, user=[uid, uid])

    async def assign(self, worker_id: str, workspace: str) -> None:
        """An idle worker is given this conversation's folder. Raises OSError, TimeoutError."""
        if self._users.assign(worker_id, os.path.basename(workspace)):
            await trio.to_thread.run_sync(self._users.give, worker_id)

    def adopt(self, worker_id: str, worker: str, workspace: str) -> None:
        """Know of a worker that another supervisor contained; `workspace` is its folder's name."""
        kind = self._types.get(worker)
        if kind is None:
            return
        with self._workspaces.opened(workspace) as top:
            uid = None if top is None else os.fstat(top).st_uid
        if uid is not None and uid != os.geteuid():
            self._users.adopt(worker_id, uid, workspace)
        else:
            uid = None
        if kind.has_network:
            try:
                self._egress.open(worker_id, self._allowed(kind), uid)
            except OSError as error:
                _log.warning("worker.without_network", worker_id=worker_id, reason=str(error))

    def settle(self) -> None:
        """All that another supervisor left and that is worth it is adopted: close what the rest had open."""
        if os.geteuid() == 0:
            self._users.close_unused()
        self._egress.remove_unused()

    def release(self, worker_id: str) -> None:
        """The worker is gone, or never was. May be called again. Raises nothing."""
        self._egress.close(worker_id)
        try:
            self._users.release(worker_id)
        except OSError as error:  # stays open to a uid that has no other worker until the next supervisor closes it
            _log.warning("workspace.not_closed", worker_id=worker_id, reason=str(error))

    async def _contain(self, kind: WorkerType, spawn: Spawn) -> Spawn:
        limits = dict(kind.limits)
        uid: int | None = None
        if kind.name in self._own_user:
            uid = self._users.take(spawn.worker_id, os.path.basename(spawn.cwd))
            await trio.to_thread.run_sync(self._users.give, spawn.worker_id)
            limits["RLIMIT_NPROC"] = kind.processes
        spawn = spawn._replace(limits=limits, user=None if uid is None else [uid, uid])
        return spawn if kind.sandbox == "none" else self._in_sandbox(kind, spawn, uid)

    def _in_sandbox(self, kind: WorkerType, spawn: Spawn, uid: int | None) -> Spawn:
        if self._system is None:
            raise SpawnFailed(f"The sandbox of worker type {kind.name!r} was not tested.")
        environment, folder = dict(spawn.env), None
        if kind.has_network:
            folder = self._egress.open(spawn.worker_id, self._allowed(kind), uid)
            environment.update(proxy_environment())
        sandbox = Sandbox(
            workspace=spawn.cwd,
            readable=(*kind.readable, *kind.programs, *self._own_python(kind, self._system)),
            hidden=(str(self._place.state_dir),),
            temporary_bytes=kind.temporary_mb * MIB,
            proxy_folder=folder,
            processes=kind.processes if uid is None else None,
        )
        return spawn._replace(argv=command_line(self._system, sandbox, spawn.argv), env=environment)

    def _allowed(self, kind: WorkerType) -> Allowlist:
        own = (self._place.dispatcher,) if kind.dispatcher and self._place.dispatcher is not None else ()
        return Allowlist((*kind.network, *own))

    # --- tests of types

    async def _prove(self, kinds: Collection[WorkerType]) -> None:
        if any(kind.sandbox == "bwrap" for kind in kinds):
            try:
                self._system = find_system()
            except NoSandbox as error:
                self._system = None
                _log.error("sandbox.missing", reason=str(error))
        if os.geteuid() == 0:
            with self._opened_state_dir():
                for kind in kinds:
                    await self._prove_user(kind)
        for kind in kinds:
            if kind.own_user and kind.name not in self._own_user:
                self._refuse(kind, self._refused.get(kind.name, "own_user = true needs a supervisor that runs as root"))
            elif kind.sandbox == "bwrap":
                await self._prove_sandbox(kind)

    def _refuse(self, kind: WorkerType, reason: str) -> None:
        sentence = f"Workers of type {kind.name!r} do not start on this host: {reason}."
        self._refused[kind.name] = sentence
        _log.error("worker.refused", worker=kind.name, reason=reason)

    async def _prove_user(self, kind: WorkerType) -> None:
        """Whether a user of their own can reach all that the type's workers need."""
        if kind.own_user is False:
            return
        try:
            with self._test_workspace() as name:
                worker_id = new_id()
                uid = self._users.take(worker_id, name)
                try:
                    self._users.give(worker_id)
                    path = os.path.join(self._workspaces.path, name)
                    reason = await first_unreachable(self._link, path, self._needed(kind), uid)
                finally:
                    self._users.release(worker_id)
        except (ProbeFailed, SpawnFailed, OSError) as error:
            problem: str | None = str(error)
        else:
            problem = None if reason is None else f"uid {uid} cannot reach {reason}"
        if problem is None:
            self._own_user.add(kind.name)
        elif kind.own_user:
            self._refused[kind.name] = f"own_user = true is not possible, {problem}"
        else:
            _log.warning("worker.no_own_user", worker=kind.name, runs_as="root", reason=problem)

    def _needed(self, kind: WorkerType) -> list[str]:
        needed = [*kind.programs, *kind.readable]
        if kind.sandbox == "bwrap" and self._system is not None:
            system = self._system
            return [*needed, system.bwrap, *system.read_only, *self._own_python(kind, system), PROBE, RELAY]
        if kind.argv[0] == sys.executable:
            needed += [sys.prefix, sys.base_prefix, str(Path(__file__).parents[2] / "lobu_actors" / "__init__.py")]
        return needed

    @staticmethod
    def _own_python(kind: WorkerType, system: System) -> tuple[str, ...]:
        return system.own_python if sys.executable in (kind.argv[0], system.python) else ()

    async def _prove_sandbox(self, kind: WorkerType) -> None:
        if self._system is None:
            self._refuse(kind, "its sandbox needs the program bwrap (package bubblewrap, 0.8 or newer)")
            return
        worker_id = new_id()
        try:
            with self._test_workspace() as name, baits(self._place.state_dir) as facts:
                workspace = os.path.join(self._workspaces.path, name)
                # The same type in all but the program, so that its sandbox has all that its workers' have.
                readable = (*kind.readable, *kind.programs, *self._own_python(kind, self._system))
                command = (self._system.python, "-I", "-S", PROBE, json.dumps(facts))
                probe = attrs.evolve(kind, command=command, readable=readable)
                environment = {**ENVIRONMENT, "WORKSPACE_DIR": workspace}
                spawn = await self._bounded(probe, Spawn(worker_id, probe.argv, environment, workspace))
                _how, answer = await run_probe(self._link, spawn)
                problem = verdict(answer)
        except (ProbeFailed, SpawnFailed, OSError) as error:
            problem = str(error)
        finally:
            self.release(worker_id)
        if problem is not None:
            self._refuse(kind, f"its sandbox does not hold, {problem}")

    @contextmanager
    def _test_workspace(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix=".test-", dir=self._workspaces.path) as path:
            yield os.path.basename(path)

    @contextmanager
    def _opened_state_dir(self) -> Iterator[None]:
        """Folders on the way to a workspace may be passed by others, but not listed; unless no type needs it."""
        folders = (self._place.state_dir, Path(self._workspaces.path))
        before = [stat.S_IMODE(folder.stat().st_mode) for folder in folders]
        for folder, mode in zip(folders, before, strict=True):
            folder.chmod(mode | 0o011)
        try:
            yield
        finally:
            if not self._own_user:
                for folder, mode in zip(folders, before, strict=True):
                    folder.chmod(mode)


class _Serving:
    """The context of a child within this child."""

    def __init__(self, stopping: trio.Event) -> None:
        self.stopping = stopping
        self.up = trio.Event()

    def started(self, value: object = None) -> None:
        self.up.set()
