"""A few complete `lobu run` hosts on one Postgres, each behind a network cable of its own, linked to each other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from tests.cluster.network import Direction, Network, network
from tests.cluster.postgres import Database, database
from tests.system.lobu_process import EXIT_SECONDS, LobuRun, lobu_run
from tests.system.sse_client import Broken, Client

NAMES = ("a", "b", "c")
HTTP_PORT, LINK_PORT = 8080, 7000
LINKED_SECONDS = 60.0
POLL_SECONDS = 0.05
CONFIG = """
[limits]
requests_per_second = 0
{limits}
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
[[agents]]
id = "echo"
worker = "echo"
default = true
[links]
listen = "{address}:{port}"
"""
SHARED = {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_JWT_KEYS": f"k:{'s' * 40}"}
_LINKS_UP = re.compile(r'^lobu_links_up\{direction="(in|out)"\} (\d+)', re.MULTILINE)


@attrs.frozen(eq=False)
class Host:
    name: str
    address: str
    run: LobuRun

    def client(self) -> Client:
        return Client(self.run.url, self.run.admin_key)


@attrs.frozen(eq=False)
class Cluster:
    """Made by `cluster`. Hosts have all settings as they are by default, but for the rate limit of requests."""

    network: Network
    database: Database
    hosts: list[Host]

    def others(self, host: Host) -> list[Host]:
        return [other for other in self.hosts if other is not host]

    async def linked(self) -> None:
        """Until every host has its link to and from every other one."""
        with trio.move_on_after(LINKED_SECONDS) as scope:
            while not all([await self._is_linked(host) for host in self.hosts]):  # noqa: ASYNC110, other processes do it
                await trio.sleep(POLL_SECONDS)
        if scope.cancelled_caught:
            logs = "\n".join(f"=== {host.name}\n{host.run.log()}" for host in self.hosts)
            raise AssertionError(f"not all links are up within {LINKED_SECONDS:g} s\n{logs}")

    async def _is_linked(self, host: Host) -> bool:
        every = len(self.hosts) - 1
        return await _links_of(host) == {"in": every, "out": every}

    def cut(self, host: Host, direction: Direction, *, database: bool, peers: bool) -> None:
        """The host from Postgres, from all other hosts, or from both; clients still reach it."""
        addresses = [other.address for other in self.others(host)] if peers else []
        addresses += [self.database.address] if database else []
        self.network.cut(host.name, direction, peers=addresses)


async def _links_of(host: Host) -> dict[str, int]:
    try:
        text = await host.client().text("/metrics")
    except (Broken, trio.TooSlowError):
        return {}
    return {direction: int(number) for direction, number in _LINKS_UP.findall(text)}


@asynccontextmanager
async def cluster(size: int, limits: str = "") -> AsyncIterator[Cluster]:
    """Started and linked; `limits` are further lines of that table. Raises NoNetwork where the machine cannot; whatever
    happens, nothing of it stays."""
    with network() as made:
        async with database(made) as postgres, AsyncExitStack() as stack:
            hosts = []
            for name in NAMES[:size]:
                address = made.add(name)
                run = lobu_run(
                    config=CONFIG.format(address=address, port=LINK_PORT, limits=limits),
                    database_url=postgres.url,
                    arguments=("--host", address, "--port", str(HTTP_PORT)),
                    environment=SHARED,
                    prefix=made.inside(name),
                    start=False,
                )
                hosts.append(Host(name, address, await stack.enter_async_context(run)))
            whole = Cluster(made, postgres, hosts)
            try:
                await _all_at_once(host.run.start for host in hosts)
                await whole.linked()
                yield whole
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + EXIT_SECONDS):
                    await _all_at_once(host.run.kill_all for host in hosts)


async def _all_at_once(every: Iterable[Callable[[], Awaitable[object]]]) -> None:
    async with trio.open_nursery() as nursery:
        for each in every:
            nursery.start_soon(each)
