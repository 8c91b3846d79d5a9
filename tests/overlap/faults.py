"""What dies, stands still or is cut in a round, at times that overlap, and the hosts and database that it happens to.

Each mends what it did: every host is up and every line open when `World.round` returns.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import trio

from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from tests.conftest import TEST_SETTINGS, make_folder
from tests.fakes.proxy import Proxy
from tests.overlap.runners import Runner, runners
from tests.system.cluster import SEVERAL, standing_still
from tests.system.lobu_process import LobuRun, free_port, lobu_run

WITHIN_SECONDS = 3.0  # all of a round begin
DRAINED_SECONDS = 90.0
STARTS, START_AGAIN_SECONDS = 60, 0.5
STOP_SECONDS = 30.0
URL = "postgresql://lobu@127.0.0.1:{port}/postgres"
Fault = Callable[[random.Random], Awaitable[None]]


class World:
    """Hosts on one database, each with a line to it of its own."""

    def __init__(
        self,
        server: EmbeddedServer | None,
        url: str,
        hosts: Sequence[LobuRun],
        lines: Sequence[Proxy],
        machines: Sequence[Runner],
        longest_seconds: float,
    ) -> None:
        """`server` None: the one host has its own. `machines` lend their workers."""
        self.hosts = hosts
        self.machines = machines
        self.counts: Counter[str] = Counter()  # of what was caused
        self.faults: list[str] = []  # of hosts that did not start or end as they should
        self.notes: list[str] = []  # of this round
        self.blind = False  # nobody was left in it who would freeze the workers of one host
        self._server = server
        self._url = url
        self._lines = lines
        self._longest_seconds = longest_seconds  # that one fault lasts
        self._began = 0.0

    @property
    def url(self) -> str:
        return self._url or self.hosts[0].database_url

    def _seconds(self, dice: random.Random) -> float:
        """Mostly short, now and then the longest."""
        return min(self._longest_seconds, dice.expovariate(4 / self._longest_seconds))

    async def round(self, dice: random.Random) -> None:
        """Two to four faults; all is mended when this returns."""
        slots: dict[str, Fault] = {"database": self._database}
        for number, line in enumerate(self._lines):
            slots[f"line{number}"] = partial(self._line, line, f"line{number}")
        for number, host in enumerate(self.hosts):
            slots[f"host{number}"] = partial(self._host, host, f"host{number}")
            slots[f"spawner{number}"] = partial(self._spawner, host, f"spawner{number}")
            slots[f"workers{number}"] = partial(self._workers, host, f"workers{number}")
        for machine in self.machines:
            slots |= machine.slots(self._note, self._seconds)
        names = dice.sample(sorted(slots), dice.randint(2, 4))
        self.blind = any({f"host{n}", f"spawner{n}"} <= set(names) for n in range(len(self.hosts)))
        self.notes.clear()
        self._began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._after, dice.uniform(0, WITHIN_SECONDS), slots[name], dice.random())
        for machine in self.machines:
            await machine.let_in()
            self.faults += machine.faults

    async def _after(self, seconds: float, fault: Fault, seed: float) -> None:
        await trio.sleep(seconds)
        await fault(random.Random(seed))

    def _note(self, name: str, how: str, seconds: float | None = None) -> None:
        self.counts[f"{name.rstrip('01')} {how}"] += 1
        lasts = "" if seconds is None else f" for {seconds:.2f}"
        self.notes.append(f"{trio.current_time() - self._began:.2f} {name} {how}{lasts}")

    async def _database(self, dice: random.Random) -> None:
        how, seconds = dice.choice(("still", "gone", "killed", "backends", "backend")), self._seconds(dice)
        if (postmaster := self._postmaster()) is None:
            return
        self._note("database", how, seconds)
        if how == "still":
            with suppress(psutil.NoSuchProcess, ProcessLookupError), standing_still(postmaster):
                await trio.sleep(seconds)
        elif how in ("gone", "killed"):
            _signal(postmaster, signal.SIGKILL if how == "killed" else signal.SIGQUIT)
            if self._server is not None:  # else its host starts it again
                await self._server.stop("immediate")
                await trio.sleep(seconds)
                await self._server.start()
        else:
            sessions = [child for child in psutil.Process(postmaster).children() if _is_session(child)]
            if how == "backend":  # asked to end, so the others live on
                sessions = dice.sample(sessions, min(1, len(sessions)))
            for session in sessions:
                with suppress(psutil.NoSuchProcess):
                    session.send_signal(signal.SIGTERM if how == "backend" else signal.SIGKILL)

    def _postmaster(self) -> int | None:
        if self._server is not None:
            return self._server.pid
        try:
            pid = self.hosts[0].postmaster_pid()
        except (OSError, ValueError):
            return None
        return pid if psutil.pid_exists(pid) else None

    async def _line(self, line: Proxy, name: str, dice: random.Random) -> None:
        how, seconds = dice.choice(("cut", "stall", "slow")), self._seconds(dice)
        self._note(name, how, seconds)
        if how == "slow":
            line.latency_seconds = dice.uniform(0.01, 0.3)
        elif how == "cut":
            line.cut()
        else:
            line.stall()
        await trio.sleep(seconds)
        line.latency_seconds = 0.0
        line.heal()

    async def _workers(self, host: LobuRun, name: str, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 8)):
            await trio.sleep(dice.uniform(0, 0.7))
            workers = sorted(host.worker_pids())
            if not workers:
                continue
            how, pid = dice.choice(("kill", "kill", "stop", "kill all")), dice.choice(workers)
            self._note(name, how)
            # Who was stopped stays so until its clocks end it: a SIGCONT of ours might let a frozen one go on.
            for one in workers if how == "kill all" else [pid]:
                _signal(one, signal.SIGSTOP if how == "stop" else signal.SIGKILL)

    async def _spawner(self, host: LobuRun, name: str, dice: random.Random) -> None:
        pid = host.spawner_pid()
        how, seconds = dice.choice(("kill", "stop")), self._seconds(dice)
        if pid is None:
            return
        self._note(name, how, seconds)
        if how == "kill":
            _signal(pid, signal.SIGKILL)
        else:
            _signal(pid, signal.SIGSTOP)
            await trio.sleep(seconds)
            _signal(pid, signal.SIGCONT)

    async def _host(self, host: LobuRun, name: str, dice: random.Random) -> None:
        """The supervisor's own life, in every order; up again when this returns."""
        how = dice.choice(("kill", "pause", "kill paused", "drain", "killed drain", "paused drain", "all"))
        first, second, away = self._seconds(dice), dice.uniform(0, 2), dice.choice((0.0, self._seconds(dice)))
        self._note(name, how, first)
        if how == "all":
            await host.kill_all()
        if how in ("drain", "killed drain", "paused drain"):
            host.signal(signal.SIGTERM)
        if how in ("pause", "kill paused", "paused drain"):
            await trio.sleep(second / 4)
            _signal(host.pid, signal.SIGSTOP)
            await trio.sleep(first)
        if how == "killed drain":
            await trio.sleep(second)
        if how in ("kill", "kill paused", "killed drain"):
            await host.kill_main()
        if how in ("pause", "paused drain"):
            _signal(host.pid, signal.SIGCONT)
        if how in ("drain", "paused drain"):
            await self._drained(host, name)
        if how != "pause":
            await trio.sleep(away)
            await self._up(host, name)

    async def _drained(self, host: LobuRun, name: str) -> None:
        try:
            code = await host.wait_exit(DRAINED_SECONDS)
        except AssertionError as error:
            self.faults.append(f"{name} did not drain: {error}")
            await host.kill_main()
            return
        if code != 0:
            self.faults.append(f"{name} exited with {code} when it drained\n{host.log()}")
        if left := host.processes():
            self.faults.append(f"{name} left behind when it drained: {left}")

    async def _up(self, host: LobuRun, name: str) -> None:
        """Started until it is ready: as a service manager does, when there was no database."""
        for _ in range(STARTS):
            try:
                await host.start()
            except AssertionError as error:
                self._note(name, "refused to start")
                if host.process is not None and host.process.poll() is None:
                    self.faults.append(f"{name} hung at its start: {error}")
                    await host.kill_main()
                await trio.sleep(START_AGAIN_SECONDS)
            else:
                return
        self.faults.append(f"{name} does not start any more\n{host.log()}")


def _is_session(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return " lobu postgres " in " ".join(process.cmdline())
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@asynccontextmanager
async def world(number: int, config: str, longest_seconds: float, machines: int, program: Path) -> AsyncIterator[World]:
    """That many hosts, ready. One: with its embedded database; several: on one server, each by a line of its own.

    `machines`: how many lend their workers, which are `program`.
    """
    async with AsyncExitStack() as stack:
        if number == 1:
            run = await stack.enter_async_context(lobu_run(config=config, arguments=("--port", str(free_port()))))
            lent = await stack.enter_async_context(runners([run], machines, program))
            yield World(None, "", [run], [], lent, longest_seconds)
            return
        server, port = await stack.enter_async_context(_server())
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        lines, hosts = [Proxy(port) for _ in range(number)], []
        for line in lines:
            await nursery.start(line.run)
            found = lobu_run(
                config=config,
                database_url=URL.format(port=line.port),
                environment=SEVERAL,
                arguments=("--port", str(free_port())),
            )
            hosts.append(await stack.enter_async_context(found))
        lent = await stack.enter_async_context(runners(hosts, machines, program))
        yield World(server, URL.format(port=port), hosts, lines, lent, longest_seconds)


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[EmbeddedServer, int]]:
    folder, port = make_folder(), free_port()
    server = EmbeddedServer(folder, settings=TEST_SETTINGS | {"listen_addresses": "127.0.0.1", "port": str(port)})
    try:
        await server.start()
        await migrate(URL.format(port=port))
        yield server, port
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS):
            await server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
